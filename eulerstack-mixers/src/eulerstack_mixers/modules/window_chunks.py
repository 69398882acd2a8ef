"""Attention to a window in chunks: a chunk of queries meets the keys that its tokens may see, and no others.

Time and memory are then linear in the number of tokens, without a kernel of their own: n chunks of c tokens meet
c + window − 1 keys each, and are given to an attention function as n times as many rows.

Shapes: queries (batch, heads, time, head_dim) -> (batch · n, heads, c, head_dim), and outputs the same way back
"""

import torch
from torch import nn

from eulerstack_mixers.modules.token_blocks import TokenRows

# Smaller chunks make smaller matrix products than a processor is good at.
LEAST_CHUNK = 128


class WindowChunks:
    """The chunks of one call. `extended` are the tokens' own states with the window's history before them."""

    def __init__(self, rows: TokenRows, extended: torch.Tensor, window: int):
        self.rows, self.extended, self.window = rows, extended, window
        self.size = max(window, LEAST_CHUNK)
        self.number = -(-rows.time // self.size)
        self.surplus = self.number * self.size - rows.time
        # Keys are missing before a short history, and behind the last chunk.
        self.missing = (window - 1 - (extended.shape[1] - rows.time), self.surplus)

    @property
    def pays(self) -> bool:
        """Whether there are chunks enough to be worth their seams."""
        return self.number > 2

    def queries(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, heads, time, channels) -> (batch · n, heads, c, channels)"""
        padded = nn.functional.pad(states, (0, 0, 0, self.surplus))
        return padded.unflatten(2, (self.number, self.size)).transpose(1, 2).flatten(0, 1)

    def restored(self, states: torch.Tensor) -> torch.Tensor:
        """(batch · n, c, heads, channels), as attention gives it, -> (batch, time, heads, channels)"""
        return states.unflatten(0, (-1, self.number)).flatten(1, 2)[:, : self.rows.time]

    def keys(self, others: torch.Tensor | None = None) -> torch.Tensor:
        """The window's keys of each chunk, and `others`, (batch, blocks, channels), which all chunks may see."""
        near = self._overlapping(nn.functional.pad(self.extended, (0, 0, *self.missing))).transpose(2, 3)
        if others is not None:
            near = torch.cat((near, others.unsqueeze(1).expand(-1, self.number, -1, -1)), dim=2)
        return near.flatten(0, 1)

    def visible(self, others: torch.Tensor | None = None) -> torch.Tensor:
        """Which of those keys each query sees; `others` is (batch or 1, time, blocks). (batch · n, 1, c, keys)"""
        rows = self.rows
        queries = self._of_queries(rows.places, 0)
        keys = self._of_keys(rows.key_places(self.extended))
        distance = queries[..., :, None] - keys[..., None, :]
        near = (distance >= 0) & (distance < self.window) & (keys >= 0)[..., None, :]
        if rows.sequence_ids is not None:
            ids = rows.sequence_ids
            near = near & (self._of_queries(ids, -1)[..., :, None] == self._of_keys(ids)[..., None, :])
        visible = near.expand(rows.batch, -1, -1, -1)
        if others is not None:
            far = nn.functional.pad(others, (0, 0, 0, self.surplus)).unflatten(1, (self.number, self.size))
            visible = torch.cat((visible, far.expand(rows.batch, -1, -1, -1)), dim=-1)
        return visible.flatten(0, 1).unsqueeze(1)

    def _of_queries(self, values: torch.Tensor, filling: int) -> torch.Tensor:
        """(batch or 1, time) -> (batch or 1, n, c)"""
        return nn.functional.pad(values, (0, self.surplus), value=filling).unflatten(1, (self.number, self.size))

    def _of_keys(self, values: torch.Tensor) -> torch.Tensor:
        """(batch or 1, tokens) -> (batch or 1, n, keys), -1 where there is none."""
        return self._overlapping(nn.functional.pad(values, self.missing, value=-1))

    def _overlapping(self, padded: torch.Tensor) -> torch.Tensor:
        """(batch or 1, tokens, …) -> (batch or 1, n, …, keys)"""
        return padded.unfold(1, self.size + self.window - 1, self.size)
