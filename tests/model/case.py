"""One line of the table of what every field does."""

from eulerstack.testing.cases import Case

__all__ = ["Case"]
