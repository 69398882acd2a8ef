"""Layers from their definitions: where norms stand and how branches are added.

`mixer` and `ffn` map (time, d_model) to itself; `norms` holds a function for every slot of `declarations/residuals.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Branch = Callable[[Tensor], Tensor]


def sequential(
    hidden_states: Tensor, mixer: Branch, ffn: Branch, norms: Mapping[str, Branch], position: str, scaling: float = 1.0
) -> Tensor:
    """The mixer's branch, then the feed-forward block's, each added to what it read."""
    for name, branch in (("mixer", mixer), ("ffn", ffn)):
        branch_input = norms[f"{name}_norm"](hidden_states) if position in ("pre", "sandwich") else hidden_states
        output = branch(branch_input)
        if position in ("output", "sandwich"):
            output = norms[f"{name}_output_norm"](output)
        hidden_states = hidden_states + scaling * output
        if position == "post":
            hidden_states = norms[f"{name}_norm"](hidden_states)
    return hidden_states


def parallel(
    hidden_states: Tensor, mixer: Branch, ffn: Branch, norms: Mapping[str, Branch], position: str, scaling: float = 1.0
) -> Tensor:
    """Both branches read the same input; their results are added to it together."""
    branch_input = norms["mixer_norm"](hidden_states) if position in ("pre", "sandwich") else hidden_states
    mixed, fed = mixer(branch_input), ffn(branch_input)
    if position in ("output", "sandwich"):
        mixed, fed = norms["mixer_output_norm"](mixed), norms["ffn_output_norm"](fed)
    total = hidden_states + scaling * mixed + scaling * fed
    return norms["mixer_norm"](total) if position == "post" else total
