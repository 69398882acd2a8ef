"""The words that every memory has, and what they say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins.primitive import Params, Problem

SEE = "reference/errors.md#memory"

MEMORY_WORDS: dict[str, Any] = {
    "update_at_inference": {
        "type": "boolean",
        "default": True,
        "description": (
            "Whether reading changes the memory, in training as in generation; false: it is trained and read alone."
        ),
    },
    "persistence": {
        "type": ["string", "null"],
        "enum": ["per_query", "session", "persistent", None],
        "default": None,
        "description": (
            "How long the memory lives: per_query for one call of generate, session as long as the cache, persistent "
            "in the model from call to call. null: session."
        ),
    },
}
"""The properties that belong into `Primitive.inline` of every memory."""


def settle_memory(params: Params) -> Params:
    """`params` with the persistence that null stands for; the core does this after `resolve`."""
    if params["persistence"] is None and params["update_at_inference"]:
        return {**params, "persistence": "session"}
    return params


def check_updating(params: Params, *words: str) -> Iterator[Problem]:
    """What a memory that is never updated has no use for: `words`, which are null by default.

    The core asks this of `persistence`; a memory's `checks` ask it of the words of their own that are about updates.
    """
    if params["update_at_inference"]:
        return
    for word in words:
        if params[word] is not None:
            yield Problem(
                word,
                msg("{word} has no effect on a memory that is not updated", word=word),
                msg("Delete {word}, or type update_at_inference: true", word=word),
                SEE,
            )


def must_update(params: Params, name: str) -> Iterator[Problem]:
    """That a memory which begins empty is written to."""
    if not params["update_at_inference"]:
        yield Problem(
            "update_at_inference",
            msg("a memory of type {name} that is never updated stays empty", name=name),
            msg("Type update_at_inference: true, or delete the memory"),
            SEE,
        )


def has_memory_words(inline: Mapping[str, Any]) -> bool:
    """Whether a memory's `inline` holds the words that the core reads."""
    return all(word in inline for word in MEMORY_WORDS)
