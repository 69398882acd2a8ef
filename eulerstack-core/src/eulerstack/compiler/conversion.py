"""From an importer's table to tensors: which tensor there makes which tensors here, in both directions.

The shapes of the model here decide everything: a row of the table is in force when the model has its tensors, a fused
tensor is split by the sizes of its parts, matrices of experts are stacked, and whatever is then missing, left over or
of another shape is reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from eulerstack.compiler.checkpoints import SEE_WEIGHTS, Checkpoint, TensorEntry
from eulerstack.errors import CompileError, Diagnostic, Location, Message, msg
from eulerstack.plugins.primitive import Importer, TensorRule, WeightRule

if TYPE_CHECKING:
    import torch

    from eulerstack.ir.types import ModelIR

Shapes = Mapping[str, tuple[int, ...]]
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_SHOWN = 3


@dataclass(frozen=True)
class Piece:
    """One tensor there and the tensors here that it consists of, joined along axis 0 (after transposing)."""

    there: str
    here: tuple[str, ...]
    transpose: bool
    flat: bool = False

    def shape_there(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape that the tensor there must have, given the shapes here."""
        if self.flat:
            return (math.prod(shapes[self.here[0]]),)
        rows = sum(shapes[name][0] for name in self.here)
        shape = (rows, *shapes[self.here[0]][1:])
        return shape[::-1] if self.transposed(shapes) else shape

    def transposed(self, shapes: Shapes) -> bool:
        """Whether the two axes are swapped: of matrices only."""
        return self.transpose and len(shapes[self.here[0]]) == 2

    def rows_of(self, name: str, shapes: Shapes) -> tuple[int, int]:
        """The rows [begin, end) that tensor `name` takes in the joined one."""
        begin = sum(shapes[before][0] for before in self.here[: self.here.index(name)])
        return begin, begin + shapes[name][0]


@dataclass(frozen=True)
class Slab:
    """One matrix there, which is the rows [begin, end) of one expert in a tensor here."""

    there: str
    name: str
    expert: int
    begin: int
    end: int

    @property
    def here(self) -> tuple[str, ...]:
        """The one tensor here."""
        return (self.name,)

    def shape_there(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape that the matrix there must have, given the shapes here."""
        return (self.end - self.begin, *shapes[self.name][2:])


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(re.escape("{i}"), r"(?P<i>\d+)") + r"(?:\.(?P<leaf>[^.]+))?")


def plan(
    rules: tuple[TensorRule, ...], shapes: Shapes, stored: Collection[str] = ()
) -> tuple[tuple[Piece | Slab, ...], tuple[str, ...]]:
    """The pieces that make up the tensors of a model, in the model's order, and the names that no rule covers.

    `stored` are names of tensors there, by which experts that were saved together are told from others.
    """
    pieces: dict[str, Piece | Slab] = {}
    uncovered = []
    for name in shapes:
        found = next((parts for rule in rules if (parts := _pieces(rule, name, shapes, stored))), ())
        if not found or any(part not in shapes for piece in found for part in piece.here):
            uncovered.append(name)
        else:
            pieces.update({piece.there: piece for piece in found})
    return tuple(pieces.values()), tuple(uncovered)


def _pieces(
    rule: TensorRule, name: str, shapes: Shapes, stored: Collection[str]
) -> tuple[Piece, ...] | tuple[Slab, ...]:
    """What `rule` makes of the tensor `name` here; nothing when it is not about it."""
    if isinstance(rule, WeightRule):
        piece = _piece(rule, name)
        return () if piece is None else (piece,)
    match = _pattern(rule.here).fullmatch(name)
    if not match or match["leaf"] or len(shapes[name]) != 3:
        return ()
    index = match.groupdict().get("i") or ""
    fused = rule.fused.replace("{i}", index)
    if fused in stored:
        return (Piece(fused, (name,), False),)
    experts, height = shapes[name][0], shapes[name][1] // len(rule.there)
    return tuple(
        Slab(there.replace("{i}", index).replace("{e}", str(expert)), name, expert, part * height, (part + 1) * height)
        for expert in range(experts)
        for part, there in enumerate(rule.there)
    )


def _piece(rule: WeightRule, name: str) -> Piece | None:
    for module in rule.here:
        if rule.tensors:
            match = _pattern(module).fullmatch(name)
            if match and not match["leaf"]:
                index = match.groupdict().get("i") or ""
                names = [text.replace("{i}", index) for text in (rule.there, *rule.here)]
                return Piece(names[0], tuple(names[1:]), rule.transpose, rule.flat)
            continue
        match = _pattern(module).fullmatch(name)
        if match and match["leaf"]:
            index = match.groupdict().get("i") or ""
            full = [f"{text.replace('{i}', index)}.{match['leaf']}" for text in (rule.there, *rule.here)]
            return Piece(full[0], tuple(full[1:]), rule.transpose)
    return None


def names_there(checkpoint: Checkpoint, importer: Importer) -> dict[str, str]:
    """The tensors that count, from the name in the importer's table to the name in the file.

    A checkpoint saved from the bare base model lacks the prefix of the class with a head; tensors that hold no
    information are left out.
    """
    bare = bool(importer.prefix) and not any(name.startswith(importer.prefix) for name in checkpoint.entries)
    names = {}
    for name in checkpoint.entries:
        full = importer.prefix + name if bare and name != HEAD else name
        if not any(_pattern(dropped).fullmatch(full) for dropped in importer.drop):
            names[full] = name
    return names


class Conversion:
    """A checkpoint seen through its family's table as tensors of our model.

    `shapes` are the model's tensors, `whole` the names of those that hold whole numbers. Errors: CompileError with
    everything that does not fit, before anything is read, but for a tied head that differs from its embedding.
    """

    def __init__(
        self, checkpoint: Checkpoint, importer: Importer, ir: ModelIR, shapes: Shapes, whole: Collection[str] = ()
    ):
        self.checkpoint, self.importer, self.shapes, self.whole = checkpoint, importer, shapes, whole
        self.names = names_there(checkpoint, importer)
        self.pieces, uncovered = plan(importer.rules_for(ir), shapes, self.names)
        self._source: dict[str, list[Piece | Slab]] = {}
        for piece in self.pieces:
            for part in piece.here:
                self._source.setdefault(part, []).append(piece)
        self._check(uncovered)

    def _check(self, uncovered: tuple[str, ...]) -> None:
        problems: list[tuple[Message, Message]] = []
        wanted = {piece.there: piece for piece in self.pieces}
        missing = [name for name in wanted if name not in self.names] + list(uncovered)
        if missing:
            problems.append(
                (
                    msg("lacks {count} tensors that config.json asks for: {names}", **_few(missing)),
                    msg("download all of the weights again, or correct config.json"),
                )
            )
        extra = [name for name in self.names if name not in wanted and not self._is_tied_copy(name)]
        known = [
            (what, fix)
            for names, what, fix in self.importer.refused
            if any(_pattern(name).fullmatch(found) for name in names for found in extra)
        ]
        problems += known
        if extra and not known:
            family = self.importer.architecture
            problems.append(
                (
                    msg("has {count} tensors that {family} does not have: {names}", **_few(extra), family=family),
                    msg("correct config.json so that it describes these weights (adapters must be merged first)"),
                )
            )
        for name, piece in wanted.items():
            entry = self.checkpoint.entries.get(self.names.get(name, ""))
            if entry is None:
                continue
            expected = piece.shape_there(self.shapes)
            if entry.shape != expected:
                problems.append(
                    (
                        msg(
                            "{name} has the shape {actual}, but config.json asks for {expected}",
                            name=name,
                            actual=_shape(entry.shape),
                            expected=_shape(expected),
                        ),
                        msg("correct config.json, or download the weights that belong to it"),
                    )
                )
            elif not self._fits(piece, entry):
                problems.append(
                    (
                        msg("{name} holds {dtype} numbers", name=name, dtype=entry.dtype),
                        msg("convert the checkpoint to bfloat16, float16 or float32 first"),
                    )
                )
        self._raise(problems)
        self._check_tied_copy()

    def _fits(self, piece: Piece | Slab, entry: TensorEntry) -> bool:
        """Whether the number type is one that is read, whole where ours is, and that of the first expert."""
        first = self._source[piece.here[0]][0].there
        like = self.checkpoint.entries.get(self.names.get(first, ""), entry).dtype
        return entry.dtype in DTYPES and entry.dtype == like and (entry.dtype == "I64") == (piece.here[0] in self.whole)

    def _is_tied_copy(self, name: str) -> bool:
        return name == HEAD and HEAD not in self.shapes

    def _check_tied_copy(self) -> None:
        """A tied head may be stored beside the embedding, as older versions did, but must be the same numbers."""
        if HEAD not in self.names or HEAD in self.shapes:
            return
        head, embedding = self.names[HEAD], self.names[self._source[EMBEDDING][0].there]
        ours, theirs = self.checkpoint.entries[head], self.checkpoint.entries[embedding]
        same = (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) and bool(
            (self.checkpoint.tensor(head) == self.checkpoint.tensor(embedding)).all()
        )
        if not same:
            self._raise(
                [
                    (
                        msg("has a head of its own, but config.json says that it is tied to the embedding"),
                        msg("set tie_word_embeddings to false in config.json"),
                    )
                ]
            )

    def _raise(self, problems: list[tuple[Message, Message]]) -> None:
        if problems:
            place = Location(str(self.checkpoint.directory), 1, 1)
            raise CompileError(
                Diagnostic("CompileError", what, fix, SEE_WEIGHTS, location=place) for what, fix in problems
            )

    def dtype(self, name: str) -> str:
        """The dtype of our tensor `name`: that of the tensor it is made from."""
        return DTYPES[self.checkpoint.entries[self.names[self._source[name][0].there]].dtype]

    def tensor(self, name: str) -> torch.Tensor:
        """Our tensor `name`, contiguous; reads no more of the file than it needs."""
        piece = self._source[name][0]
        if isinstance(piece, Slab):
            return self._stacked(name)
        part = self.checkpoint.slice(self.names[piece.there])
        if piece.flat:
            whole: torch.Tensor = part[:]
            return whole.reshape(self.shapes[name]).contiguous()
        begin, end = piece.rows_of(name, self.shapes)
        tensor = part[:, begin:end].t() if piece.transposed(self.shapes) else part[begin:end]
        # a part of a fused tensor must not keep the whole of it in memory
        return tensor.clone() if len(piece.here) > 1 and tensor.is_contiguous() else tensor.contiguous()

    def _stacked(self, name: str) -> torch.Tensor:
        """Our tensor `name` from the matrices of its experts."""
        import torch

        stacked = torch.empty(self.shapes[name], dtype=getattr(torch, self.dtype(name)))
        for slab in self._source[name]:
            if isinstance(slab, Slab):
                stacked[slab.expert, slab.begin : slab.end] = self.checkpoint.tensor(self.names[slab.there])
        return stacked

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of our model in the model's order, one at a time."""
        for name in self.shapes:
            yield name, self.tensor(name)


def restore(checkpoint: Checkpoint, piece: Piece | Slab) -> torch.Tensor:
    """The tensor there that a piece's tensors here make up: the reverse of `Conversion.tensor`."""
    import torch

    if isinstance(piece, Slab):
        part: torch.Tensor = checkpoint.slice(piece.name)[piece.expert : piece.expert + 1, piece.begin : piece.end]
        return part[0].contiguous()
    parts = [checkpoint.tensor(name) for name in piece.here]
    joined = torch.cat(parts) if len(parts) > 1 else parts[0]
    if piece.flat:
        return joined.reshape(-1).contiguous()
    return (joined.t() if piece.transpose and joined.dim() == 2 else joined).contiguous()


def _few(names: list[str]) -> dict[str, object]:
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return {"count": len(names), "names": shown}


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(side) for side in shape) + "]"
