"""docs/reference/presets.md: name, exact size, summary and source of every shipped preset."""

from __future__ import annotations

import re
from pathlib import Path

from pages.markdown import GENERATED, join, table

INTRODUCTION = """\
# Presets

Starting points: every size can be edited. `eulerstack presets list` shows them, `eulerstack presets show NAME` prints
one, and every `--preset` takes a name or a path. Parameters are exact, embeddings included, a tied head counted once;
the cache is that of one sequence at the preset's full context, in its own dtype."""


def page() -> str:
    """The page's text."""
    import eulerstack as es
    import eulerstack_presets
    from eulerstack.compiler.cost import model_cost

    rows = []
    for path in sorted(Path(eulerstack_presets.__file__).parent.glob("*.yml")):
        ir = es.normalize_to_ir(es.load(str(path)))
        header = header_of(path)
        cache = model_cost(ir).cache_bytes(ir.model["max_seq_len"])
        rows.append(
            [
                f"`{path.stem}`",
                f"{es.count_parameters(ir):,}",
                f"{len(ir.layers)} × {ir.model['d_model']}",
                f"{ir.model['max_seq_len']:,}",
                f"{cache / 2**20:,.1f} MiB",
                header[0],
                source_of(header),
            ]
        )
    columns = ["name", "parameters", "layers × width", "context", "cache", "summary", "source"]
    return join(GENERATED, INTRODUCTION, table(columns, rows))


def header_of(path: Path) -> list[str]:
    """The lines of the comment at the top, without their marks."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines


def source_of(header: list[str]) -> str:
    """What follows `Source:` up to the line with the tier."""
    text = " ".join(header)
    return re.sub(r"^.*?Source: (.*?)\.? Tier \d.*$", r"\1", text)
