"""Messages of this package, which has catalogs of its own."""

from __future__ import annotations

from typing import Any

from eulerstack.errors import Message

DOMAIN = "eulerstack_tensor"
SEE = "reference/tensor.md"


def tensor_msg(template: str, **values: Any) -> Message:
    """A sentence, in English, that this package's catalogs translate."""
    return Message(template, tuple(values.items()), DOMAIN)
