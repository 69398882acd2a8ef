"""Tokens in mini-batches: for modules whose state changes once for several tokens of a sequence.

Rows may be padded, may go on in the middle of a mini-batch, and may hold several sequences, each of which begins a new
one. So every token has a place in its sequence, and goes to the slot that this place has in a mini-batch.
"""

import torch


def places_in_sequence(
    valid: torch.Tensor, tokens: torch.Tensor | None, sequence_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many tokens of its sequence precede each one, and which tokens begin a packed sequence; (batch, time) each.

    `tokens` (batch,) were seen before; padding (not `valid`) does not count.
    """
    before = valid.long().cumsum(-1) - valid.long()
    past = torch.zeros_like(before[:, :1]) if tokens is None else tokens[:, None]
    if sequence_ids is None:
        return before + past, torch.zeros_like(valid)
    begins = torch.ones_like(valid)
    begins[:, 1:] = sequence_ids[:, 1:] != sequence_ids[:, :-1]
    first = sequence_ids == sequence_ids[:, :1]
    start = torch.where(begins, before, 0).cummax(-1).values
    return before - start + torch.where(first, past, 0), begins & ~first & valid


def mini_batch_targets(
    valid: torch.Tensor, places: torch.Tensor, size: int, known: bool, packed: bool
) -> tuple[torch.Tensor, int]:
    """Where each token goes, (batch, time), and the number of mini-batches; padding goes behind the last of them.

    `known` says that sequences go on, maybe in the middle of a mini-batch; `packed` that a row may hold several.
    """
    slots = places % size
    number = (valid & (slots == 0)).long().cumsum(-1) - 1
    if known:
        # The first tokens go on with a mini-batch that was opened before.
        number = number + (places[:, :1] % size != 0)
    count = -(-(valid.shape[1] + (size - 1 if known else 0)) // size)
    if packed:
        count = int(number.max()) + 1
    return torch.where(valid, number * size + slots, count * size), count


def into_mini_batches(stream: torch.Tensor, target: torch.Tensor, length: int) -> torch.Tensor:
    """(batch, heads, time, width) with each token at its target; what no token takes is 0, what lies behind is lost."""
    batch, heads, _, width = stream.shape
    index = target[:, None, :, None].expand(-1, heads, -1, width)
    return stream.new_zeros(batch, heads, length + 1, width).scatter(2, index, stream)[:, :, :length]


def flags_into_mini_batches(flags: torch.Tensor, target: torch.Tensor, length: int) -> torch.Tensor:
    """(batch, time) of booleans with each token at its target."""
    return flags.new_zeros(flags.shape[0], length + 1).scatter(1, target, flags)[:, :length]
