"""Documents, end to end, cut into blocks of one length, in the form in which an EulerStack model keeps them apart.

A model sees by `position_ids` that begin again at 0 where another document begins: attention, recurrent states and
convolutions stop there. A document that doesn't fit into what is left of a block goes on in the next one as a sequence
of its own. The first token of every sequence is no target, because nothing before it says anything about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

IGNORED = -100


@dataclass
class Packer:
    """Cuts documents into blocks and counts them; `left_out` is the number of tokens after the last whole block."""

    block_tokens: int
    documents: int = 0
    tokens: int = 0
    blocks: int = 0
    _block: list[int] = field(default_factory=list)
    _positions: list[int] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """The tokens that fill no block."""
        return len(self._block)

    def blocks_of(self, documents: Iterable[list[int]]) -> Iterator[dict[str, list[int]]]:
        """`input_ids`, `position_ids` and `labels` of every block, each of `block_tokens` whole numbers."""
        for ids in documents:
            self.documents += 1
            self.tokens += len(ids)
            start = 0
            while start < len(ids):
                piece = ids[start : start + self.block_tokens - len(self._block)]
                self._block += piece
                self._positions += range(len(piece))
                start += len(piece)
                if len(self._block) == self.block_tokens:
                    self.blocks += 1
                    yield as_example(self._block, self._positions)
                    self._block, self._positions = [], []


def as_example(ids: list[int], positions: list[int]) -> dict[str, list[int]]:
    """A block as a Trainer takes it."""
    labels = [token if position else IGNORED for token, position in zip(ids, positions, strict=True)]
    return {"input_ids": ids, "position_ids": positions, "labels": labels}
