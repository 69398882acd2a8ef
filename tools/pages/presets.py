"""docs/reference/presets.md: sizes, lesson and source of every shipped preset, by tier and level."""

from __future__ import annotations

from pathlib import Path

from pages.markdown import GENERATED, join, table

INTRODUCTION = """\
# Presets

Starting points: every size can be edited. `eulerstack presets list` shows them, by tier, level, size, mixer and paper;
`eulerstack presets show NAME` explains one with a picture of its stack, and with `--yaml` prints its file. Every
`--preset` takes a name or a path. Parameters are exact, embeddings included, a tied head counted once; active ones are
those that one token touches, where that is fewer; the cache is that of one sequence at the full context, in its own
dtype. Below each table stands what its presets are, what they teach, and which work they follow."""

TIERS = {
    1: "Tier 1: validated industrial practice",
    2: "Tier 2: recent hybrids, experts and long contexts",
    3: "Tier 3: experimental primitives",
}
LLM = "The llm family"
COLUMNS = ["name", "parameters", "active", "layers × width", "context", "cache", "mixers"]


def page() -> str:
    """The page's text."""
    import eulerstack_presets
    from eulerstack.preset_headers import LEVELS, read_header

    paths = sorted(Path(eulerstack_presets.__file__).parent.glob("*.yml"))
    headers = {path: read_header(path) for path in paths}
    sections = []
    for tier, title in TIERS.items():
        sections.append(f"## {title}")
        for level in LEVELS:
            here = [path for path in paths if (headers[path].tier, headers[path].level) == (tier, level)]
            if here:
                name = LLM if level == "llm" else level.capitalize()
                sections += [f"### {name}, tier {tier}", table(COLUMNS, [_row(path) for path in here])]
                sections.append("\n".join(_words(path) for path in here))
    return join(GENERATED, INTRODUCTION, *sections)


def _row(path: Path) -> list[str]:
    import eulerstack as es
    from eulerstack.compiler.cost import model_cost

    ir = es.normalize_to_ir(es.load(str(path)))
    cost = model_cost(ir)
    mixers = dict.fromkeys(layer.mixer.type for layer in ir.layers)
    return [
        f"`{path.stem}`",
        f"{cost.total:,}",
        f"{cost.active:,}" if cost.active < cost.total else "",
        f"{len(ir.layers)} × {ir.model['d_model']}",
        f"{ir.model['max_seq_len']:,}",
        f"{cost.cache_bytes(ir.model['max_seq_len']) / 2**20:,.1f} MiB",
        ", ".join(f"`{mixer}`" for mixer in mixers),
    ]


def _words(path: Path) -> str:
    from eulerstack.preset_headers import read_header

    header = read_header(path)
    return f"- `{path.stem}`: **{header.summary}** Teaches: {header.teaches} Source: {header.source}"
