"""The back end `vendor.toy.table`: the layers of a model as a table, one line a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eulerstack.errors import CompileError, Diagnostic, Message
from eulerstack.plugins import Target

TABLE = Target("vendor.toy.table", "a table of layers", "eulerstack_toy.target:write_table")
MOST_LAYERS = 1000


def write_table(ir: Any, folder: Path, *, seed: int, spec_text: str, spec_dir: Path | None) -> None:
    """Fills `folder` with layers.tsv, seed.txt and the spec; refuses a table that nobody would read."""
    if len(ir.layers) > MOST_LAYERS:
        raise CompileError(
            [
                Diagnostic(
                    "CompileError",
                    Message("a table of {count} layers is too long", (("count", len(ir.layers)),), "eulerstack_toy"),
                    Message("Type compile_target: huggingface", (), "eulerstack_toy"),
                    "writing-a-plugin.md#a-target",
                )
            ]
        )
    lines = [
        f"{index}\t{layer.mixer.type}\t{layer.ffn.type}\t{layer.norm.type}\t{layer.residual.type}\n"
        for index, layer in enumerate(ir.layers)
    ]
    (folder / "layers.tsv").write_text("layer\tmixer\tffn\tnorm\tresidual\n" + "".join(lines), encoding="utf-8")
    (folder / "seed.txt").write_text(f"{seed}\n", encoding="utf-8")
    (folder / "spec.yml").write_text(spec_text, encoding="utf-8")
