"""What the families share: the shape of a spec, the way back to a config.json, and the rows of Llama's weight table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import WeightRule
from eulerstack_mixers.importers.reader import ConfigReader
from eulerstack_mixers.importers.rope import read_rope, write_rope

# config.json's name of an activation -> the language's
PLAIN_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
GATED_ACTIVATIONS = {**PLAIN_ACTIVATIONS, "gelu": "geglu", "gelu_python": "geglu", "silu": "swiglu", "swish": "swiglu"}
_GATES = {"swiglu": "silu", "geglu": "gelu"}
_HF_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}


@dataclass(frozen=True)
class Layout:
    """What is the same in every layer of a rotary, gated decoder; `windows` is what may differ.

    `attention`, `ffn` and `norm` are the template's words, `windows` the number of visible tokens of each layer
    (None: all), `embedding` and `head` what those sections say beyond the usual. `experts` is the ffn of each layer
    with experts and None for the others; empty where no layer has any.
    """

    head_dim: int | None
    windows: Sequence[int | None]
    activation: str
    attention: Mapping[str, Any] = field(default_factory=dict)
    ffn: Mapping[str, Any] = field(default_factory=dict)
    norm: Mapping[str, Any] = field(default_factory=dict)
    embedding: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    experts: Sequence[Mapping[str, Any] | None] = ()


def gated_decoder_spec(reader: ConfigReader, model_type: str, layout: Layout) -> dict[str, Any]:
    """The spec of a decoder with rotary positions, RMSNorm and a gated ffn; raises the reader's problems."""
    d_model, n_heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    max_seq_len = reader.integer("max_position_embeddings")
    model: dict[str, Any] = {
        "name": model_type,
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": max_seq_len,
        "n_heads": n_heads,
    }
    n_kv_heads = reader.optional_integer("num_key_value_heads") or n_heads
    if n_kv_heads != n_heads:
        model["n_kv_heads"] = n_kv_heads
    head_dim = layout.head_dim or d_model // n_heads
    if head_dim * n_heads != d_model:
        model["head_dim"] = head_dim
    sound = reader.sound("hidden_size", "num_attention_heads", "num_key_value_heads")
    if sound and (d_model < n_heads or n_heads % n_kv_heads):
        reader.wrong("num_attention_heads", n_heads, msg("a multiple of num_key_value_heads, at most hidden_size"))
    model["d_ff"] = reader.integer("intermediate_size")
    model["norm_eps"] = reader.positive("rms_norm_eps")
    model["initializer_range"] = reader.positive("initializer_range")
    embedding = {
        "type": "learned",
        "positional": "rope",
        **read_rope(reader, max_seq_len),
        **layout.embedding,
    }
    attention = {**layout.attention, "attn_drop": reader.probability("attention_dropout")}
    experts = layout.experts or [None] * len(layout.windows)
    mixed = len(set(layout.windows)) > 1, len({each is None for each in experts}) > 1
    layers = []
    for window, mixture in zip(layout.windows, experts, strict=True):
        kinds = ("sliding" if window else "global", "dense" if mixture is None else "experts")
        dense = {"type": "gated_mlp", "activation": layout.activation, **layout.ffn}
        template = {
            "mixer": {"type": "attention", "attention": {**attention, "window": window}},
            "ffn": dense if mixture is None else {**mixture, "activation": layout.activation},
            "norm": {"type": "rmsnorm", "position": "pre", **layout.norm},
        }
        name = "_".join(kind for kind, differs in zip(kinds, mixed, strict=True) if differs)
        layers.append((name or "decoder", template))
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings"), **layout.head}
    return finish_spec(reader, model_type, model, embedding, layers, head)


def finish_spec(
    reader: ConfigReader,
    model_type: str,
    model: dict[str, Any],
    embedding: Mapping[str, Any],
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    head: Mapping[str, Any],
    dropout: float = 0.0,
) -> dict[str, Any]:
    """The whole spec from its parts; `layers` are (template name, template) of each layer, in order.

    Raises CompatibilityError with every problem that the reader has met.
    """
    reader.require("quantization_config", None, msg("quantised weights have no words in the language"))
    dtype = reader.dtype()
    reader.finish()
    if dtype is not None:
        model["dtype"] = dtype
    model["family_hint"] = model_type
    schedule: list[dict[str, Any]] = []
    for name, _ in layers:
        if schedule and schedule[-1]["template"] == name:
            schedule[-1]["repeat"] += 1
        else:
            schedule.append({"template": name, "repeat": 1})
    return {
        "schema_version": 1,
        "model": model,
        "tokenizer_contract": {"type": "hf"},
        "embedding": dict(embedding),
        "layer_templates": {name: dict(template) for name, template in layers},
        "layer_schedule": schedule,
        "head": dict(head),
        "training_hints": {"dropout": dropout},
    }


def gated_decoder_config(ir: Any, **words: Any) -> dict[str, Any]:
    """config.json of a rotary, gated decoder for `ir`, with a family's own `words` on top.

    What the first layer says is taken for all; the caller reads the result back and compares.
    """
    first = ir.layers[0]
    attention = first.mixer.params
    return {
        "vocab_size": ir.model["vocab_size"],
        "hidden_size": ir.model["d_model"],
        "intermediate_size": ir.model["d_ff"],
        "num_hidden_layers": len(ir.layers),
        "num_attention_heads": ir.model["n_heads"],
        "num_key_value_heads": ir.model["n_kv_heads"],
        "head_dim": ir.model["head_dim"],
        "hidden_act": hf_activation(first.ffn.params.get("activation", "swiglu")),
        "max_position_embeddings": ir.model["max_seq_len"],
        "initializer_range": ir.model["initializer_range"],
        "rms_norm_eps": ir.model["norm_eps"],
        "rope_parameters": write_rope(ir.position.params, ir.model["max_seq_len"]),
        "attention_dropout": attention.get("attn_drop", 0.0),
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "dtype": ir.model["dtype"],
        **words,
    }


def layer_windows(ir: Any) -> list[int | None]:
    """The window of each layer, in visible tokens."""
    return [layer.mixer.params.get("window") for layer in ir.layers]


def window_words(ir: Any) -> dict[str, Any]:
    """`layer_types` and `sliding_window` for the layers of `ir`."""
    windows = layer_windows(ir)
    return {
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        "sliding_window": next((window for window in windows if window), None),
    }


def read_windows(reader: ConfigReader, default_types: Sequence[str]) -> list[int | None]:
    """The window of each layer from `layer_types` (or `default_types` where config.json has none)."""
    layer_types = reader.layer_types(len(default_types)) or default_types
    if "sliding_attention" not in layer_types:
        return [None] * len(layer_types)
    window = reader.optional_integer("sliding_window")
    if window is None:
        reader.wrong("sliding_window", None, msg("a number of tokens, because `layer_types` has sliding_attention"))
    return [window if name == "sliding_attention" else None for name in layer_types]


def hf_activation(word: str) -> str:
    """config.json's name for an activation of the language."""
    gate = _GATES.get(word, word)
    return _HF_ACTIVATIONS.get(gate, gate)


def canonical_layer(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` with one word for each meaning: the gate's own name, an explicit score scale, no window mode."""
    result = {name: dict(part) for name, part in layer.items()}
    ffn = result["ffn"]
    if "activation" in ffn:
        ffn["activation"] = _GATES.get(ffn["activation"], ffn["activation"])
    mixer = result["mixer"]
    mixer.pop("window_mode", None)
    if mixer.get("scale") is None and "head_dim" in result["dims"]:
        mixer["scale"] = result["dims"]["head_dim"] ** -0.5
    return result


def attention_rules(names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj")) -> tuple[WeightRule, ...]:
    """Rows for modules of attention that have the same names on both sides."""
    return tuple(
        WeightRule(f"model.layers.{{i}}.self_attn.{name}", (f"model.layers.{{i}}.mixer.{name}",)) for name in names
    )


def norm_rules(names: Mapping[str, str]) -> tuple[WeightRule, ...]:
    """Rows for a layer's norms, from their names there to their slots here."""
    return tuple(
        WeightRule(f"model.layers.{{i}}.{there}", (f"model.layers.{{i}}.{here}",)) for there, here in names.items()
    )


GATED_FFN_RULES = tuple(
    WeightRule(f"model.layers.{{i}}.mlp.{name}", (f"model.layers.{{i}}.ffn.{name}",))
    for name in ("gate_proj", "up_proj", "down_proj")
)
OUTER_RULES = tuple(WeightRule(name, (name,)) for name in ("model.embed_tokens", "model.norm", "lm_head"))
PRE_NORM_RULES = norm_rules({"input_layernorm": "mixer_norm", "post_attention_layernorm": "ffn_norm"})
LLAMA_RULES = (*OUTER_RULES, *attention_rules(), *GATED_FFN_RULES, *PRE_NORM_RULES)
ROTARY_BUFFERS = ("model.layers.{i}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
