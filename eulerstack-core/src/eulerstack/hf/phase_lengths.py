"""How many tokens the phases of a generation may take. Torch-free, because `explain` counts them too."""

from collections.abc import Mapping, Sequence
from typing import Any


def total_budget(modes: Sequence[Mapping[str, Any]]) -> int:
    """The most tokens that all phases of `modes` generate, rationales included."""
    tokens, rationale = 0, 0
    for mode in modes:
        if mode["per_token_rationale"]:
            rationale = mode["max_tokens"]
        else:
            tokens += mode["max_tokens"] * (1 + rationale)
            rationale = 0
    return tokens


def longest_context(modes: Sequence[Mapping[str, Any]], has_token: bool) -> int:
    """The most tokens of phases that a context holds at once, beside the prompt.

    `has_token`: phases end with a transition token, which stays where the rest of its phase is dropped.
    """
    longest, kept = 0, 0
    rationale: Mapping[str, Any] | None = None
    for mode in modes:
        if mode["per_token_rationale"]:
            rationale = mode
            continue
        budget = mode["max_tokens"]
        beside = 0
        if rationale is not None:
            # A rationale that later tokens do not see is there once, for the last token.
            beside = rationale["max_tokens"] * (budget if rationale["kv_share"] else 1)
        longest = max(longest, kept + budget + beside)
        if rationale is not None and rationale["kv_share"]:
            kept += beside
        kept += budget if mode["kv_share"] else int(has_token)
        rationale = None
    return longest
