"""What contradicts what in `execution_modes` and `transition`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eulerstack.dsl.paths import show
from eulerstack.errors import Collector, msg

SEE = "reference/errors.md#phases"


def check_phases(modes: Sequence[Mapping[str, Any]], transition: Mapping[str, Any] | None, problems: Collector) -> None:
    """That phases can be told apart, lead somewhere and show something, and that their transition can happen."""
    if transition is not None:
        _check_transition(modes, transition, problems)
    if not modes:
        return
    names: set[str] = set()
    for index, mode in enumerate(modes):
        path, name = f"execution_modes[{index}]", mode["name"]
        if name in names:
            problems.add(
                f"{path}.name",
                msg("there are two phases called {name}", name=show(name)),
                msg("Give one of them another name"),
                SEE,
            )
        names.add(name)
        following = modes[index + 1] if index + 1 < len(modes) else None
        if following is None and mode.get("kv_share") is False:
            problems.add(
                f"{path}.kv_share",
                msg("no phase follows {name}, so nothing could share its cache", name=show(name)),
                msg("Delete kv_share"),
                SEE,
            )
        if mode.get("per_token_rationale") and (following is None or following.get("per_token_rationale")):
            problems.add(
                f"{path}.per_token_rationale",
                msg("a rationale needs a phase after it whose tokens it is for, and which is none itself"),
                msg("Type per_token_rationale: false, or put a phase after {name}", name=show(name)),
                SEE,
            )
    if not any(mode.get("visible_to_user", True) for mode in modes):
        problems.add(
            "execution_modes",
            msg("every phase is hidden, so generate would return nothing"),
            msg("Type visible_to_user: true for the last phase"),
            SEE,
        )


def _check_transition(modes: Sequence[Mapping[str, Any]], transition: Mapping[str, Any], problems: Collector) -> None:
    if not modes:
        problems.add(
            "transition",
            msg("there are no phases between which a transition could be"),
            msg("Add execution_modes, or delete transition"),
            SEE,
        )
        return
    by_token, token = transition.get("type") == "special_token", transition.get("token")
    if by_token and token is None:
        problems.add(
            "transition",
            msg("special_token needs the token that ends a phase"),
            msg("Add token: <think_end>, or type type: budget_exhausted"),
            SEE,
        )
    if not by_token and token is not None:
        problems.add(
            "transition.token",
            msg("token has a meaning only with type: special_token"),
            msg("Type type: special_token, or delete token"),
            SEE,
        )
    if by_token and len(modes) < 2:
        problems.add(
            "transition.type",
            msg("there is one phase, which no token can end: a token ends every phase but the last"),
            msg("Add a phase, or delete transition"),
            SEE,
        )
