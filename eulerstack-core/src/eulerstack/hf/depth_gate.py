"""Mixture-of-Depths: a layer processes some of the tokens, and the others pass it by.

x_i ← x_i + r_i f(x)_i for a chosen token, where f sees the chosen tokens alone; x_i for every other. With z = w·x:

    top_k         while training, the `capacity` share of each sequence with the largest z is chosen; r = z
    learned_gate  a token is chosen where σ(z) > 1/2, while training too; r = σ(z)

Outside of training both choose where σ(z) > 1/2, so that a token decides from itself alone. What makes that the wanted
share is a loss: the binary cross-entropy of σ(z) against membership in the best share of the sequence.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
Cost:   d_model parameters, 2·d_model FLOPs per token; `capacity` of what f costs
Source: Raposo et al. 2024, arXiv:2404.02258, equation 1 and section 3.5
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from eulerstack.hf.matrices import matrix_of

DEPTH_ROUTERS = ("top_k", "learned_gate")


@dataclass
class DepthChoice:
    """Which tokens a layer processes: `chosen` (batch, time), their factors `weights` (batch, time) in float32, and
    while training what the choice adds to the loss."""

    chosen: torch.Tensor
    weights: torch.Tensor
    loss: torch.Tensor | None


def share_of(length: int, capacity: float) -> int:
    """How many of so many tokens a share is: rounded to the nearest, and at least one of any."""
    return max(min(length, 1), int(length * capacity + 0.5))


def tokens_of_share(lengths: torch.Tensor, capacity: float) -> torch.Tensor:
    """`share_of` of each of several lengths."""
    share = torch.floor(lengths.double() * capacity + 0.5).long()
    return torch.maximum(share, lengths.clamp(max=1))


def best_share(
    logits: torch.Tensor, capacity: float, kept: torch.Tensor | None, sequence_ids: torch.Tensor | None
) -> torch.Tensor:
    """The `capacity` share of each sequence's tokens with the largest logits; the earlier of equals.

    Shapes: logits (batch, time); kept (batch, time), false at padding, or None; sequence_ids (batch or 1, time), rising
    integers from 0 in a row that holds several sequences, or None -> booleans (batch, time).
    """
    batch, time = logits.shape
    owners = torch.zeros(batch, time, dtype=torch.long, device=logits.device)
    if sequence_ids is not None:
        owners = owners + sequence_ids
    if kept is not None:
        # Padding comes after all sequences.
        owners = owners.masked_fill(~kept, time)
    order = logits.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, owners.gather(1, order).argsort(dim=1, stable=True))
    owners_in_order = owners.gather(1, order)
    lengths = owners.new_zeros(batch, time + 1).scatter_add(1, owners, torch.ones_like(owners))
    starts = lengths.cumsum(1) - lengths
    ranks = torch.arange(time, device=logits.device) - starts.gather(1, owners_in_order)
    best = ranks < tokens_of_share(lengths, capacity).gather(1, owners_in_order)
    return torch.zeros_like(best).scatter(1, order, best & (owners_in_order < time))


def chosen_places(chosen: torch.Tensor, count: int, at_end: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of each row's chosen tokens, in their order, filled up to `count` with places of other tokens.

    Shapes: chosen (batch, time) -> places (batch, count), and which of them are chosen (batch, count). The chosen come
    last where `at_end`, otherwise first.
    """
    order = (chosen if at_end else ~chosen).to(torch.int8).argsort(dim=1, stable=True)
    places = order[:, order.shape[1] - count :] if at_end else order[:, :count]
    return places, chosen.gather(1, places)


def like(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """`values` (batch, count), one for all channels of `states` (batch, count, …)."""
    return values.view(*values.shape, *(1 for _ in states.shape[2:]))


def at_places(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`states` (batch or 1, time, …) at `places` (batch, count); (batch, count, …)."""
    states = states.expand(places.shape[0], *states.shape[1:])
    return states.gather(1, like(places, states).expand(-1, -1, *states.shape[2:]))


class DepthGate(nn.Module):
    """Chooses tokens, and adds to them what a body makes of them.

    `capacity` in (0, 1] is the share of tokens that is to be chosen, `router` one of DEPTH_ROUTERS. After a training
    pass by hand `aux_loss` is what must be added to the loss so that evaluation chooses the same share.

        gate = DepthGate(d_model=768, capacity=0.5, router="top_k")
        y = gate(x, body_fn=attention)

    Errors: ValueError for a share or a router that there is not.
    """

    parameter_roles = {"router.weight": "router"}

    def __init__(self, d_model: int, capacity: float = 0.5, router: str = "top_k"):
        super().__init__()
        if not 0.0 < capacity <= 1.0:
            raise ValueError(f"capacity must be in (0, 1], not {capacity}")
        if router not in DEPTH_ROUTERS:
            raise ValueError(f"router must be one of {', '.join(DEPTH_ROUTERS)}, not {router!r}")
        self.capacity, self.kind = capacity, router
        self.router = nn.Linear(d_model, 1, bias=False)
        self.aux_loss: torch.Tensor | None = None

    def choose(
        self, hidden_states: torch.Tensor, kept: torch.Tensor | None = None, sequence_ids: torch.Tensor | None = None
    ) -> DepthChoice:
        """The choice for hidden_states (batch, time, d_model); `kept` and `sequence_ids` as `best_share` takes them.

        Of several residual streams, (batch, time, streams, d_model), the router reads the mean.
        """
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.mean(-2)
        precise = torch.promote_types(hidden_states.dtype, torch.float32)
        with torch.autocast(hidden_states.device.type, enabled=False):
            logits = nn.functional.linear(hidden_states.to(precise), matrix_of(self.router, precise)).squeeze(-1)
        members = best_share(logits.detach(), self.capacity, kept, sequence_ids) if self.training else None
        if members is not None and self.kind == "top_k":
            chosen = members
        else:
            chosen = logits > 0 if kept is None else (logits > 0) & kept
        weights = logits if self.kind == "top_k" else torch.sigmoid(logits)
        loss = None
        if members is not None:
            each = nn.functional.binary_cross_entropy_with_logits(logits, members.to(precise), reduction="none")
            loss = each.mean() if kept is None else (each * kept).sum() / kept.sum().clamp(min=1)
        return DepthChoice(chosen, weights, loss)

    @staticmethod
    def add(
        hidden_states: torch.Tensor, branch: torch.Tensor, weights: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """x + r·f at `places` (batch, count), x elsewhere; branch (batch, count, …), weights (batch, count)."""
        added = (branch * like(weights, branch)).to(hidden_states.dtype)
        return hidden_states.scatter_add(1, like(places, added).expand_as(added), added)

    def forward(self, hidden_states: torch.Tensor, body_fn: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """hidden_states (batch, time, d_model) -> the same shape.

        `body_fn` is f, which is given the chosen tokens alone, (rows, chosen, d_model), in their order: rows that have
        chosen equally many together. Of a block that adds its input itself, f is `lambda x: block(x) - x`.
        """
        choice = self.choose(hidden_states)
        self.aux_loss = choice.loss
        output = hidden_states
        counts = choice.chosen.sum(1)
        for count in filter(None, counts.unique().tolist()):
            rows = (counts == count).nonzero().squeeze(1)
            places, _ = chosen_places(choice.chosen[rows], count, at_end=False)
            branch = body_fn(at_places(hidden_states[rows], places))
            changed = self.add(hidden_states[rows], branch, choice.weights[rows].gather(1, places), places)
            output = output.index_copy(0, rows, changed)
        return output

    def extra_repr(self) -> str:
        return f"capacity={self.capacity}, router={self.kind!r}"
