"""Tables that an export keeps only in part."""

from typing import Any

# From words of a spec to what they choose. Annotated so, a table's keys are texts, or names of constant texts beside
# it, and an exported file holds those lines alone whose key the spec says.
ByName = dict[str, Any]
