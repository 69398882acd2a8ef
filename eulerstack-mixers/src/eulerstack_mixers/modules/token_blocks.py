"""Tokens in blocks: where a call's tokens stand in their sequences, which of them complete a block, who sees it.

Blocks are counted from the first own token of a sequence: block i is its tokens i·stride … i·stride + length − 1. A
row's own tokens come first here and padding after them, so that every row begins with its first block; where a cache
already holds tokens, blocks go on where they stopped, in each row at its own place.

Shapes: states (batch, time, …); places, how many tokens of the same sequence come before each, (batch or 1, time)
State:  `count`, the own tokens of each row so far, (batch), 8 bytes; histories of the last tokens, which end where the
        row's own tokens end; blocks from the first one on, (batch, blocks, …)
"""

from typing import Any

import torch
from torch import nn


def taken_rows(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The states at `places`, (batch, …), of each row of (batch, time, channels); (batch, …, channels)."""
    rows = torch.arange(states.shape[0], device=states.device).view(-1, *[1] * (places.ndim - 1)) * states.shape[1]
    return states.flatten(0, 1).index_select(0, (rows + places).flatten()).unflatten(0, places.shape)


def complete_blocks(tokens: Any, length: int, stride: int) -> Any:
    """How many blocks `tokens` tokens complete; an integer or a tensor of them."""
    if isinstance(tokens, int):
        return max(0, (tokens - length) // stride + 1)
    return (torch.div(tokens - length, stride, rounding_mode="floor") + 1).clamp(min=0)


class TokenRows:
    """The tokens of one call of a mixer, and what its cache holds of those before them."""

    def __init__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
        cache: Any,
    ):
        self.batch, self.time = hidden_states.shape[:2]
        self.device, self.cache, self.sequence_ids = hidden_states.device, cache, sequence_ids
        # Both None where nothing is padding.
        self.order: torch.Tensor | None = None
        self.own: torch.Tensor | None = None
        if attention_mask is not None:
            padding = attention_mask == 0
            self.order = padding.to(torch.int32).argsort(dim=1, stable=True)
            self.own = ~padding.gather(1, self.order)
        self.past: torch.Tensor | None = None if cache is None else cache.get("count")
        steps = torch.arange(self.time, device=self.device)[None]
        if sequence_ids is not None:
            begins = torch.diff(sequence_ids, dim=-1, prepend=sequence_ids[:, :1] - 1) != 0
            self.places = steps - torch.where(begins, steps, 0).cummax(dim=1).values
        else:
            self.places = steps if self.past is None else self.past[:, None] + steps
        self.position_ids = self.places if position_ids is None else self.arranged(position_ids)

    def arranged(self, states: torch.Tensor) -> torch.Tensor:
        """States of the call's tokens, (batch or 1, time, …), in the order of this class: own tokens first."""
        if self.order is None:
            return states
        if states.ndim == 2:
            return states.expand(self.batch, -1).gather(1, self.order)
        return taken_rows(states.expand(self.batch, *states.shape[1:]).contiguous(), self.order)

    def restored(self, states: torch.Tensor) -> torch.Tensor:
        """Arranged states in the order of the call, (batch, time, channels)."""
        return states if self.order is None else taken_rows(states, self.order.argsort(dim=1))

    def extended(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Arranged states with the history called `name` before them."""
        history = None if self.cache is None else self.cache.get(name)
        return states if history is None else torch.cat((history.to(states.dtype), states), dim=1)

    def remember(self, name: str, extended: torch.Tensor, limit: int) -> None:
        """Keeps the last `limit` own tokens of each row of extended states."""
        if self.cache is None:
            return
        if self.own is not None:
            # Padding goes from behind a row's own tokens to before them, as zeros.
            tokens = extended.shape[1]
            padding = (~self.own).sum(dim=1, keepdim=True)
            places = torch.arange(tokens, device=self.device) - padding
            extended = taken_rows(extended, places % tokens).masked_fill((places < 0).unsqueeze(-1), 0.0)
        self.cache.put_history(name, extended, limit)

    def key_places(self, extended: torch.Tensor) -> torch.Tensor:
        """The places of extended states, (batch or 1, tokens): negative where a history has no token yet."""
        if self.past is None:
            return self.places
        earlier = torch.arange(extended.shape[1] - self.time, 0, -1, device=self.device)
        return torch.cat((self.past[:, None] - earlier, self.places), dim=1)

    def visible_tokens(self, extended: torch.Tensor, window: int | None) -> torch.Tensor:
        """Which extended states each token sees, (batch or 1, time, tokens): the last `window` of its sequence."""
        keys, queries = self.key_places(extended), self.places
        distance = queries[:, :, None] - keys[:, None, :]
        visible = (distance >= 0) & (keys >= 0)[:, None, :]
        if window is not None:
            visible = visible & (distance < window)
        if self.sequence_ids is not None:
            visible = visible & (self.sequence_ids[:, :, None] == self.sequence_ids[:, None, :])
        return visible

    def finish(self) -> None:
        """Counts the call's tokens; called once, after everything was remembered."""
        if self.cache is None:
            return
        own = torch.full((self.batch,), self.time, device=self.device) if self.own is None else self.own.sum(dim=1)
        self.cache.put("count", own if self.past is None else self.past + own)
        if self.cache.max_cache_len is None:
            self.cache.num_tokens += self.time
        self.cache.advance(self.time)


class BlockLayout:
    """The blocks that the tokens of one call complete, and those that were complete before.

    `length` tokens make a block, which begins `stride` tokens after the one before it.
    """

    def __init__(self, rows: TokenRows, length: int, stride: int):
        self.rows, self.length, self.stride = rows, length, stride
        self.ends, self.complete = self._ends()
        # (batch or 1, new blocks); rotary position of a block: its first token.
        self.end_places = self._of_ends(rows.places)
        self.positions = self._of_ends(rows.position_ids) - (length - 1)

    @property
    def begins_the_row(self) -> bool:
        """Whether blocks lie one after the other from the first token on, as without a past and without packing."""
        return self.rows.past is None and self.rows.sequence_ids is None

    def _ends(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the call's tokens end a block, (batch or 1, new blocks), and which of these entries are one."""
        rows = self.rows
        if self.begins_the_row:
            number = complete_blocks(rows.time, self.length, self.stride)
            ends = torch.arange(number, device=rows.device)[None] * self.stride + self.length - 1
            return ends, ends < (rows.time if rows.own is None else rows.own.sum(dim=1, keepdim=True))
        if rows.past is None:
            beyond = rows.places - (self.length - 1)
            last = (beyond >= 0) & (beyond % self.stride == 0)
            number = complete_blocks(rows.time, self.length, self.stride)
            ends = (~last).to(torch.int32).argsort(dim=1, stable=True)[:, :number]
            return ends, last.gather(1, ends)
        first = complete_blocks(rows.past, self.length, self.stride) * self.stride + self.length - 1 - rows.past
        steps = torch.arange(-(-rows.time // self.stride), device=rows.device) * self.stride
        ends = first[:, None] + steps
        own = rows.time if rows.own is None else rows.own.sum(dim=1, keepdim=True)
        return ends.clamp(max=rows.time - 1), ends < own

    def _of_ends(self, values: torch.Tensor) -> torch.Tensor:
        """The values of (batch or 1, time) at the ends of blocks."""
        batch = max(values.shape[0], self.ends.shape[0])
        return values.expand(batch, -1).gather(1, self.ends.expand(batch, -1))

    def rotations(self, rotary: Any, hidden_states: torch.Tensor) -> tuple[Any, Any]:
        """The rotations of the call's tokens and of its new blocks, from one table; None where nothing rotates."""
        if rotary is None:
            return None, None
        tokens, blocks = self.rows.position_ids, self.positions
        batch = max(tokens.shape[0], blocks.shape[0])
        positions = torch.cat((tokens.expand(batch, -1), blocks.expand(batch, -1)), dim=1)
        split = (tokens.shape[1], blocks.shape[1])
        cos, sin = (table.split(split, dim=1) for table in rotary(hidden_states, positions))
        return (cos[0], sin[0]), (cos[1], sin[1])

    def gathered(self, extended: torch.Tensor, reach: int) -> torch.Tensor:
        """The last `reach` tokens up to the end of each new block, (batch, new blocks, reach, channels).

        Where a sequence has fewer, what stands for the missing ones is arbitrary: see `within`.
        """
        if self.begins_the_row:
            # An input shorter than a block has none, which is still made from it.
            missing = max(0, reach - self.length, reach - extended.shape[1])
            padded = nn.functional.pad(extended, (0, 0, missing, 0))
            return padded.unfold(1, reach, self.stride).transpose(2, 3)[:, : self.ends.shape[1]]
        earlier = extended.shape[1] - self.rows.time
        places = self.ends[:, :, None] + earlier + torch.arange(1 - reach, 1, device=extended.device)
        return taken_rows(extended, places.clamp(min=0).expand(extended.shape[0], -1, -1))

    def within(self, reach: int) -> torch.Tensor:
        """Which of the gathered tokens belong to the sequence, (batch or 1, new blocks, reach)."""
        return self.end_places[:, :, None] + torch.arange(1 - reach, 1, device=self.ends.device) >= 0

    def stored(self, name: str, new: torch.Tensor) -> torch.Tensor:
        """All blocks so far, (batch, blocks, channels), after `new` ones were put into the cache, if there is one."""
        rows, cache = self.rows, self.rows.cache
        if cache is None:
            return new
        tokens = cache.num_tokens + rows.time if cache.max_cache_len is None else cache.max_cache_len
        room = complete_blocks(tokens, self.length, self.stride)
        earlier = cache.get(name)
        if self.begins_the_row:
            blocks = nn.functional.pad(new[:, :room], (0, 0, 0, max(0, room - new.shape[1])))
        else:
            earlier = new.new_zeros(new.shape[0], 0, new.shape[2]) if earlier is None else earlier
            # One place more than there are blocks, for the entries that are none.
            blocks = nn.functional.pad(earlier, (0, 0, 0, room - earlier.shape[1] + 1))
            first = complete_blocks(rows.past, self.length, self.stride)
            places = first[:, None] + torch.arange(new.shape[1], device=new.device)
            has_room = (places < room) | ~self.complete
            torch._assert_async(has_room.all(), "the static cache has no room for another block")
            places = torch.where(self.complete, places, room)
            blocks = blocks.scatter(1, places.unsqueeze(-1).expand_as(new), new.to(blocks.dtype))[:, :room]
        cache.put_history(name, blocks, room)
        return blocks

    def visible(self, blocks: torch.Tensor) -> torch.Tensor:
        """Which blocks each token sees, (batch or 1, time, blocks): those that it completes or that were complete."""
        rows = self.rows
        if rows.sequence_ids is not None:
            of_block = rows.sequence_ids.gather(1, self.ends)
            earlier = self.ends[:, None, :] <= torch.arange(rows.time, device=rows.device)[:, None]
            return earlier & self.complete[:, None, :] & (rows.sequence_ids[:, :, None] == of_block[:, None, :])
        seen = complete_blocks(rows.places + 1, self.length, self.stride)
        return torch.arange(blocks.shape[1], device=rows.device) < seen.unsqueeze(-1)
