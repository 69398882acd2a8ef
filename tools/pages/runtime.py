"""docs/reference/runtime.md and its short form in README.md: what every primitive keeps and how it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pages.markdown import GENERATED, join, table

if TYPE_CHECKING:
    from eulerstack.compiler.runtime import Runtime
    from eulerstack.plugins.primitive import Primitive

INTRODUCTION = """\
# Runtime matrix

What every primitive keeps while decoding, and which ways to run a model it takes part in. The table is made from the
declarations, the plugins of this project included, at their defaults and with the words that change an answer;
`tests/model/test_runtime_matrix.py` builds a model of every row and holds it to what the row says.

- **cache**: *per token* grows with the sequence, *fixed* stops growing (a window, a state), *of its parts* is what the
  mixers keep that it holds.
- **cached decoding**: tokens are decoded one at a time from a cache, growing or static, and give what the whole
  sequence gives. Where it is *no* the model keeps nothing and computes the whole sequence for every token.
- **one graph**: `torch.compile(fullgraph=True)`.
- **assisted decoding**: `generate(assistant_model=…)` and `prompt_lookup_num_tokens`; a state that tokens were folded
  into can't take a refused draft back, and says so.
- **attention refused**: implementations that would leave a part of the function out, which
  `set_attn_implementation` refuses. A dash: none.
- **kernels**: faster implementations that are called where their packages and a device are there; without them torch
  computes the same.

A model can do what all of its parts can. [Mixture-of-Depths](depth_gating.md) around a layer takes one graph, the
static cache and assisted decoding away. Words come with eulerstack-mixers where no other package is named."""

COLUMNS = ["primitive", "cache", "cached decoding", "one graph", "assisted decoding", "attention refused", "kernels"]
TITLES = {
    "mixer": "Mixers", "ffn": "Feed-forward blocks", "norm": "Norms", "position": "Positions",
    "residual": "Residual streams", "head": "Heads", "integrator": "Integrators", "merge": "Merges",
    "memory": "Memories",
}  # fmt: skip
SHORT = ["mixer", "cache", "one graph", "assisted", "attention refused", "kernels"]
OURS = "eulerstack-mixers"
BEGIN, END = "<!-- runtime matrix: begin -->", "<!-- runtime matrix: end -->"
FFN = {"type": "gated_mlp"}

# Words that change an answer, by the primitive that they belong to.
SETTINGS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("mixer", "attention"): {
        "window": {"window": 8},
        "dilated window": {"window": 8, "window_mode": "dilated", "window_dilation": 2},
        "softcap": {"softcap": 30.0},
        "sinks": {"attention_sinks": {"n_per_head": 1, "learnable": True}},
        "latent_dim": {"latent_dim": 16, "rope_head_dim": 4},
        "compression hca": {"window": 8, "compression": {"type": "hca", "m_block": 4}},
        "compression csa": {"window": 8, "compression": {"type": "csa", "m_block": 4, "top_k_blocks": 2}},
        "window_mode nsa": {"window": 8, "window_mode": "nsa"},
    },
    ("mixer", "mamba"): {"mamba1": {"variant": "mamba1"}, "mamba2": {"variant": "mamba2"}},
}
# Words that have no default.
BLOCKS: dict[tuple[str, str], dict[str, Any]] = {
    ("ffn", "moe"): {"experts": 4, "top_k": 2},
    ("mixer", "branched"): {"branches": {"near": {"type": "attention"}, "far": {"type": "retnet"}}},
    ("mixer", "ttt_layer"): {"inner_model": {"type": "linear"}},
}


@dataclass(frozen=True)
class Row:
    """A primitive with some words set, and a small spec of a model that has it."""

    kind: str
    name: str
    setting: str
    spec: dict[str, Any]

    @property
    def label(self) -> str:
        """What the first column shows."""
        return f"`{self.name}`" + (f", {self.setting}" if self.setting else "")

    def declared(self) -> tuple[Primitive, Runtime]:
        """The primitive and what its declaration says, with the parameters that it has in the spec."""
        import eulerstack as es
        from eulerstack.compiler.runtime import runtime_of
        from eulerstack.plugins.manager import get_registry
        from eulerstack.schema.sizes import dims_from

        # The page is the same where what a primitive needs is not installed.
        with patch("eulerstack.schema.compatibility.is_installed", return_value=True):
            ir = es.normalize_to_ir(self.spec)
        node: Any = {
            "position": lambda: ir.position,
            "head": lambda: ir.head,
            "integrator": lambda: next(stage.integrator for stage in ir.stages if stage.word == "integrator"),
            "merge": lambda: next(stage for stage in ir.stages if stage.word == "parallel"),
        }.get(self.kind, lambda: getattr(ir.layers[-1], self.kind))()
        params = node.merge_params if self.kind == "merge" else node.params
        primitive = get_registry().get(self.kind, self.name)
        return primitive, runtime_of(primitive, dims_from(ir.model, ir.position.type), params)


def rows() -> Iterator[Row]:
    """Every primitive of ours, in the order of kinds."""
    from eulerstack.plugins.manager import get_registry

    registry = get_registry()
    for primitive in registry.primitives():
        if not registry.is_own(primitive) or primitive.kind == "linear":
            continue
        key = (primitive.kind, primitive.name)
        for setting, params in ({"": BLOCKS.get(key, {})} | SETTINGS.get(key, {})).items():
            if setting or key != ("mixer", "mamba"):
                yield Row(*key, setting, spec_of(primitive, params))


def spec_of(primitive: Primitive, params: dict[str, Any]) -> dict[str, Any]:
    """A model of two layers or stages, one of them with the primitive."""
    kind, name = primitive.kind, primitive.name
    inline = {word: value for word, value in params.items() if word in primitive.inline}
    own = {word: value for word, value in params.items() if word not in inline}
    block = inline | ({primitive.block_name: own} if own else {})
    template: dict[str, Any] = {"mixer": {"type": "attention"}, "ffn": FFN}
    spec: dict[str, Any] = {
        "schema_version": 1,
        "model": {
            "name": "row",
            "d_model": 32,
            "vocab_size": 64,
            "max_seq_len": 64,
            "n_heads": 4,
            "d_ff": 48,
            "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {"plain": {"mixer": {"type": "attention"}, "ffn": FFN}, "row": template},
        "layer_schedule": [{"template": "plain"}, {"template": "row"}],
        "head": {"type": "causal_lm"},
    }
    if kind in ("mixer", "ffn", "norm", "residual", "memory"):
        template[kind] = {"type": name, **block}
    elif kind == "position":
        spec["embedding"]["positional"] = name
    elif kind == "head":
        spec["head"] = {"type": name}
    elif kind == "integrator":
        spec["layer_schedule"][1] = {"integrator": {"type": name, "steps": 2, "body": "row"}}
    else:
        streams = [{"stream": stream, "body": [{"template": "row"}]} for stream in ("one", "two")]
        ends = {"from": "one", "to": "two"} if name == "cross_attn" else {}
        spec["layer_schedule"][1] = {"parallel": streams, "merge": {"type": name, **ends}}
    return spec


def page() -> str:
    """The page's text."""
    found: dict[str, list[list[str]]] = {kind: [] for kind in TITLES}
    for row in rows():
        primitive, runtime = row.declared()
        package = package_of(primitive)
        label = row.label if package == OURS else f"{row.label} ({package})"
        found[row.kind].append([label, *cells(runtime)])
    tables = [part for kind, title in TITLES.items() for part in (f"## {title}", table(COLUMNS, found[kind]))]
    return join(GENERATED, INTRODUCTION, *tables)


def package_of(primitive: Primitive) -> str:
    """The distribution that its declaration comes from."""
    from eulerstack.plugins.manager import get_registry

    package = get_registry().origin(primitive)[0]
    # A checkout whose packages are not installed one by one has them under one name.
    return OURS if package == "eulerstack-dev" else package


def cells(runtime: Runtime) -> list[str]:
    """What a row says after the primitive's name."""
    assisted = "of its parts" if runtime.assisted is None else _yes(runtime.assisted)
    return [
        runtime.cache,
        _yes(runtime.cached),
        _yes(runtime.one_graph),
        assisted,
        ", ".join(runtime.refused) or "—",
        ", ".join(runtime.kernels) or "torch",
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def readme(path: Path) -> str:
    """The README with the short form, of mixers alone, between its markers."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    assert begin and end, f"{path} has no place for the runtime matrix"
    body = []
    for row in rows():
        if row.kind == "mixer":
            cache, _cached, *others = cells(row.declared()[1])
            body.append([row.label, cache, *others])
    return f"{before}{begin}\n{table(SHORT, body)}\n{end}{after}"
