"""What becomes of tokens in training where an expert takes no more than its capacity.

Of the first t tokens of a sequence an expert takes at most c_t = ⌈capacity_factor · top_k · t / experts⌉. Tokens come
in their order, a token's experts all at once, so that what becomes of a token depends on earlier tokens of its own
sequence alone: not on later ones, not on the other rows of a batch, not on padding. Outside of training there is no
capacity.

drop      what an expert has no room for is left out; the weights of the token's other experts stay as they are
overflow  each token takes the best experts that have room, in the order of its router; left out is only what finds none
pad       the numbers of drop, computed in buffers of one size an expert, whatever the load is

Shapes: claims (batch, time, experts) of 0 and 1; limits c_t (batch, time)
Source: capacity and dropping: GShard, arXiv:2006.16668, section 3.2 and Switch Transformers, arXiv:2101.03961,
        equation 3; buffers of one size: Megatron-Core's inputs padded to capacity. There c is the same for all tokens
        of a batch, which makes a token's fate depend on later ones and on other rows
"""

import math
from typing import Any

import torch

from eulerstack.hf.tables import ByName


def sequence_starts(sequence_ids: torch.Tensor) -> torch.Tensor:
    """Which tokens are the first of a sequence, (batch, time)."""
    starts = torch.ones_like(sequence_ids, dtype=torch.bool)
    starts[:, 1:] = sequence_ids[:, 1:] != sequence_ids[:, :-1]
    return starts


def running_capacity(share: float, kept: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    """c_t of every token, (batch, time), for share = capacity_factor · top_k / experts; padding counts for nothing."""
    tokens = kept.long().cumsum(1)
    if starts is not None:
        tokens = tokens - (tokens - kept.long()).masked_fill(~starts, 0).cummax(1).values
    # A product that should be whole must not be rounded up for its last bit.
    return (tokens.double() * share - 1e-9).ceil().long()


def taken_within(
    claims: torch.Tensor, limits: torch.Tensor, sequence_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which claims find room, (batch, time, experts), and how many have found it up to each token of its sequence.

    An expert that has taken n tokens takes the next if n < c_t. As limits never fall within a sequence,
    n_t = min(n_{t-1} + claim_t, c_t), whose solution is A_t + min(0, min over s ≤ t of c_s - A_s) for A_t the sum of
    claims.
    """
    total = claims.cumsum(1)
    slack = limits.unsqueeze(-1) - total
    starts = None if sequence_ids is None else sequence_starts(sequence_ids)
    if starts is None or sequence_ids is None:
        taken = total + slack.cummin(1).values.clamp(max=0)
        before = torch.cat((torch.zeros_like(taken[:, :1]), taken[:, :-1]), dim=1)
    else:
        first = starts.unsqueeze(-1)
        earlier = (total - claims).masked_fill(~first, 0).cummax(1).values
        # Far below everything of the sequences before, so that the smallest is always one of the own sequence.
        depth = (sequence_ids * (2 * claims.shape[1] + int(limits.max()) + 1)).unsqueeze(-1)
        low = (slack + earlier - depth).cummin(1).values + depth
        taken = total - earlier + low.clamp(max=0)
        before = torch.cat((torch.zeros_like(taken[:, :1]), taken[:, :-1]), dim=1).masked_fill(first, 0)
    return (claims > 0) & (before < limits.unsqueeze(-1)), taken


def claimed(moe: Any, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """chosen (batch, time, top_k) -> taken and the number that its expert has taken so far, both of that shape; limits
    and kept, both (batch, time)."""
    n_experts = moe.router.n_experts
    kept = torch.ones(chosen.shape[:2], device=chosen.device) if moe.kept is None else moe.kept
    kept = kept.reshape(chosen.shape[:2]) != 0
    starts = None if moe.sequence_ids is None else sequence_starts(moe.sequence_ids)
    limits = running_capacity(moe.capacity_factor * chosen.shape[-1] / n_experts, kept, starts)
    claims = torch.zeros(*chosen.shape[:2], n_experts, dtype=torch.long, device=chosen.device)
    claims = claims.scatter(-1, chosen, 1) * kept.unsqueeze(-1)
    taken, number = taken_within(claims, limits, moe.sequence_ids)
    return taken.gather(-1, chosen), number.gather(-1, chosen), limits, kept


def drop_beyond_capacity(
    moe: Any, states: torch.Tensor, logits: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """The routed output (tokens, d_model) of states (tokens, d_model), without what an expert has no room for."""
    taken = claimed(moe, chosen.view(*moe.shape, -1))[0].flatten(0, 1)
    return moe.experts(states, weights, chosen, taken)


def overflow_to_next(
    moe: Any, states: torch.Tensor, logits: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """The routed output, each token with the best experts that have room when its turn comes."""
    by_sequence = chosen.view(*moe.shape, -1)
    taken, _, limits, kept = claimed(moe, by_sequence)
    if not bool((taken | ~kept.unsqueeze(-1)).all()):
        ranking = moe.router.ranking(logits, moe.token_ids).detach().view(*moe.shape, -1)
        chosen, taken = best_with_room(ranking, limits, kept, moe.sequence_ids, chosen.shape[-1])
        chosen = chosen.flatten(0, 1)
    taken = taken.flatten(0, 1)
    return moe.experts(states, moe.router.weigh(logits, chosen, taken), chosen, taken)


def best_with_room(
    ranking: torch.Tensor, limits: torch.Tensor, kept: torch.Tensor, sequence_ids: torch.Tensor | None, top_k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """For a ranking (batch, time, experts): the chosen (batch, time, top_k), and which of them are taken."""
    number = torch.zeros_like(ranking[:, 0], dtype=torch.long)
    starts = None if sequence_ids is None else sequence_starts(sequence_ids)
    chosen, taken = [], []
    for step in range(ranking.shape[1]):
        if starts is not None:
            number = number.masked_fill(starts[:, step, None], 0)
        full = number >= limits[:, step, None]
        best = ranking[:, step].masked_fill(full, -torch.inf).topk(top_k, dim=-1)
        found = (best.values > -torch.inf) & kept[:, step, None]
        number = number.scatter_add(-1, best.indices, found.long())
        chosen.append(best.indices)
        taken.append(found)
    return torch.stack(chosen, dim=1), torch.stack(taken, dim=1)


def pad_to_capacity(
    moe: Any, states: torch.Tensor, logits: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """The routed output of `drop_beyond_capacity`, each expert computing batch · room rows, of which some are zeros."""
    batch, time = moe.shape
    n_experts, top_k = moe.router.n_experts, chosen.shape[-1]
    taken, number, _, _ = claimed(moe, chosen.view(batch, time, -1))
    room = math.ceil(moe.capacity_factor * top_k * time / n_experts - 1e-9)
    if moe.sequence_ids is not None:
        # Each sequence of a packed row rounds its own capacity up, and counts its tokens from one.
        row_number = torch.zeros(batch, time, n_experts, dtype=torch.long, device=chosen.device)
        row_number = row_number.scatter(-1, chosen.view(batch, time, -1), taken.long()).cumsum(1)
        number = row_number.gather(-1, chosen.view(batch, time, -1))
        room += int(moe.sequence_ids.max())
    rows = torch.arange(batch, device=chosen.device).view(-1, 1, 1)
    slots = (chosen.view(batch, time, -1) * batch + rows) * room + number - 1
    # What is left out goes to one slot more, which nobody computes.
    nowhere = n_experts * batch * room
    slots = slots.masked_fill(~taken, nowhere).flatten()
    tokens = torch.arange(states.shape[0], device=states.device).repeat_interleave(top_k)
    buffers = states.new_zeros(nowhere + 1, states.shape[-1]).index_copy(0, slots, states[tokens])
    outputs = moe.experts(buffers[:nowhere].view(n_experts, batch * room, -1)).flatten(0, 1)
    outputs = torch.cat((outputs, torch.zeros_like(outputs[:1])))[slots]
    for probe in filter(None, moe.usage_probes):
        probe.read(outputs, chosen.flatten(), tokens, taken.flatten())
    outputs = outputs * weights.flatten().unsqueeze(-1)
    return torch.zeros_like(states).index_add(0, tokens, outputs.to(states.dtype))


CAPACITY_POLICIES: ByName = {
    "drop": drop_beyond_capacity,
    "overflow": overflow_to_next,
    "pad": pad_to_capacity,
}
