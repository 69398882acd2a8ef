"""Mamba, Falcon Mamba and Mamba-2: every layer a norm and a selective state space, without positions or ffn.

These classes know neither heads of attention nor a longest context. A spec must name both; where config.json has no
`num_attention_heads` and `max_position_embeddings` of its own, they get numbers that decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, WeightRule
from eulerstack_mixers.importers.common import canonical_layer, finish_spec
from eulerstack_mixers.importers.reader import ConfigReader

COMMON_DEFAULTS = {
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "initializer_range": 0.1,
    "time_step_min": 0.001,
    "time_step_max": 0.1,
}
MAMBA_DEFAULTS = {
    **COMMON_DEFAULTS,
    "vocab_size": 50280,
    "hidden_size": 768,
    "state_size": 16,
    "num_hidden_layers": 32,
    "tie_word_embeddings": True,
}
FALCON_DEFAULTS = {**MAMBA_DEFAULTS, "mixer_rms_eps": 1e-6}
MAMBA2_DEFAULTS = {
    **COMMON_DEFAULTS,
    "vocab_size": 32768,
    "hidden_size": 4096,
    "state_size": 128,
    "num_hidden_layers": 64,
    "num_heads": 128,
    "head_dim": 64,
    "n_groups": 8,
    "chunk_size": 256,
    "tie_word_embeddings": False,
}
DEFAULT_CHUNK = 256
# A state has no longest context: a number that no text reaches soon.
UNBOUNDED_CONTEXT = 2**20


def rank_of(reader: ConfigReader, key: str) -> int | None:
    """The rank of Δ's projection; None, for d_model / 16 rounded up, where config.json says auto or nothing."""
    return None if reader[key] in (None, "auto") else reader.integer(key)


def _default_heads(d_model: int) -> int:
    """Heads of 64 channels, which nothing uses."""
    return d_model // 64 if d_model % 64 == 0 else 1


def _spec(reader: ConfigReader, model_type: str, mixer: Mapping[str, Any]) -> dict[str, Any]:
    """The whole spec, `mixer` being what differs between the families."""
    reader.require("hidden_act", "silu", msg("a state space's activation is silu"))
    d_model, n_layers = reader.integer("hidden_size"), reader.layers("num_hidden_layers")
    model: dict[str, Any] = {
        "name": model_type,
        "d_model": d_model,
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": reader.optional_integer("max_position_embeddings") or UNBOUNDED_CONTEXT,
        "n_heads": reader.optional_integer("num_attention_heads") or _default_heads(d_model),
        "norm_eps": reader.positive("layer_norm_epsilon"),
        "initializer_range": reader.positive("initializer_range"),
    }
    words = {
        **mixer,
        "d_state": reader.integer("state_size"),
        "d_conv": reader.integer("conv_kernel"),
        "expand": reader.integer("expand"),
        "dt_min": reader.positive("time_step_min"),
        "dt_max": reader.positive("time_step_max"),
        "conv_bias": reader.boolean("use_conv_bias"),
        "proj_bias": reader.boolean("use_bias"),
    }
    template = {
        "mixer": {"type": "mamba", "mamba": words},
        "ffn": {"type": "none"},
        "norm": {"type": "rmsnorm", "position": "pre"},
    }
    embedding = {"type": "learned", "positional": "none"}
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    return finish_spec(reader, model_type, model, embedding, [("decoder", template)] * n_layers, head)


def mamba_to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a MambaForCausalLM's config.json."""
    reader = ConfigReader(config, MAMBA_DEFAULTS)
    return _spec(reader, "mamba", {"variant": "mamba1", "dt_rank": rank_of(reader, "time_step_rank")})


def falcon_to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a FalconMambaForCausalLM's config.json."""
    reader = ConfigReader(config, FALCON_DEFAULTS)
    words = {
        "variant": "mamba1",
        "dt_rank": rank_of(reader, "time_step_rank"),
        "bcdt_norm": "weightless",
        "norm_eps": reader.positive("mixer_rms_eps"),
    }
    return _spec(reader, "falcon_mamba", words)


def mamba2_to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Mamba2ForCausalLM's config.json."""
    reader = ConfigReader(config, MAMBA2_DEFAULTS)
    n_heads, head_dim = reader.integer("num_heads"), reader.integer("head_dim")
    sound = reader.sound("num_heads", "head_dim")
    if sound and n_heads * head_dim != reader.integer("expand") * reader.integer("hidden_size"):
        reader.wrong("num_heads", n_heads, msg("expand times hidden_size, divided by head_dim"))
    refuse_step_limit(reader)
    chunk = reader.integer("chunk_size")
    words = {
        "variant": "mamba2",
        "head_dim": head_dim,
        "n_groups": reader.integer("n_groups"),
        "chunk_size": None if chunk == DEFAULT_CHUNK else chunk,
    }
    return _spec(reader, "mamba2", words)


def refuse_step_limit(reader: ConfigReader) -> None:
    """Records a problem where Δ has bounds."""
    limit = reader["time_step_limit"]
    if limit is not None and not _is_no_limit(limit):
        reader.require("time_step_limit", None, msg("step sizes have no bounds of their own"))


def _is_no_limit(limit: Any) -> bool:
    """Whether bounds of Δ are 0 and infinity, the latter in any spelling that JSON files have for it."""
    if not isinstance(limit, (list, tuple)) or len(limit) != 2:
        return False
    low, high = limit
    spelled = high.get("__float__") if isinstance(high, Mapping) else high
    return low == 0 and str(spelled).lower() in ("inf", "infinity")


def _config(ir: Any, **words: Any) -> dict[str, Any]:
    """config.json's words that the three families share, for `ir`; what the first layer says is taken for all."""
    mixer = ir.layers[0].mixer.params
    expand = mixer.get("expand", 2.0)
    config = {
        "vocab_size": ir.model["vocab_size"],
        "hidden_size": ir.model["d_model"],
        "state_size": mixer.get("d_state", 16),
        "num_hidden_layers": len(ir.layers),
        "layer_norm_epsilon": ir.model["norm_eps"],
        "expand": int(expand) if expand == int(expand) else expand,
        "conv_kernel": mixer.get("d_conv", 4),
        "use_bias": mixer.get("proj_bias", False),
        "use_conv_bias": mixer.get("conv_bias", True),
        "hidden_act": "silu",
        "initializer_range": ir.model["initializer_range"],
        "time_step_min": mixer.get("dt_min", 0.001),
        "time_step_max": mixer.get("dt_max", 0.1),
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "dtype": ir.model["dtype"],
        **words,
    }
    if ir.model["n_heads"] != _default_heads(ir.model["d_model"]):
        config["num_attention_heads"] = ir.model["n_heads"]
    if ir.model["max_seq_len"] != UNBOUNDED_CONTEXT:
        config["max_position_embeddings"] = ir.model["max_seq_len"]
    return config


def _rank(ir: Any) -> int | str:
    return ir.layers[0].mixer.params.get("dt_rank") or "auto"


def mamba_to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Mamba that `ir` describes, if it describes one."""
    return _config(ir, time_step_rank=_rank(ir))


def falcon_to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the FalconMamba that `ir` describes, if it describes one."""
    return _config(
        ir, time_step_rank=_rank(ir), mixer_rms_eps=ir.layers[0].mixer.params.get("norm_eps") or ir.model["norm_eps"]
    )


def mamba2_to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the Mamba2 that `ir` describes, if it describes one."""
    mixer = ir.layers[0].mixer.params
    n_heads, head_dim = mamba2_widths(mixer, ir.model["d_model"])
    return _config(
        ir,
        num_heads=n_heads,
        head_dim=head_dim,
        n_groups=mixer.get("n_groups") or 1,
        chunk_size=mixer.get("chunk_size") or DEFAULT_CHUNK,
    )


def mamba2_widths(mixer: Mapping[str, Any], d_model: int) -> tuple[int, int]:
    """(heads, channels of a head) of a Mamba-2's words.

    One head where no mamba2 is described: a proposal that fits, so that what is compared are the words.
    """
    width = max(1, int(mixer.get("expand", 2.0) * d_model))
    head_dim = mixer.get("head_dim") or width
    return width // head_dim, head_dim


def canonical_state_space(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` without what changes no function: how many tokens are computed at once."""
    result = {name: dict(part) for name, part in canonical_layer(layer).items()}
    result["mixer"].pop("chunk_size", None)
    return result


def canonical_without_steps(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same for a class that has no words for the first step sizes."""
    result = {name: dict(part) for name, part in canonical_state_space(layer).items()}
    if result["mixer"]["type"] == "mamba":
        for word in ("dt_min", "dt_max"):
            result["mixer"].pop(word, None)
    return result


def mamba2_rules(there: str, here: str) -> tuple[WeightRule, ...]:
    """Rows for a Mamba-2; A_log, D and dt_bias are the mixer's own."""
    parts = (".in_proj", ".conv1d", ".norm", ".out_proj")
    return tuple(WeightRule(f"{there}{part}", (f"{here}{part}",)) for part in ("", *parts))


_THERE, _HERE = "backbone.layers.{i}", "model.layers.{i}"
RULES = (
    WeightRule("backbone.embeddings", ("model.embed_tokens",)),
    WeightRule("backbone.norm_f", ("model.norm",)),
    WeightRule("lm_head", ("lm_head",)),
    WeightRule(f"{_THERE}.norm", (f"{_HERE}.mixer_norm",)),
    # A_log, D and dt_bias, which are the mixer's own
    WeightRule(f"{_THERE}.mixer", (f"{_HERE}.mixer",)),
    *(
        WeightRule(f"{_THERE}.mixer.{name}", (f"{_HERE}.mixer.{name}",))
        for name in ("in_proj", "conv1d", "x_proj", "dt_proj", "norm", "out_proj")
    ),
)

MAMBA = Importer(
    model_type="mamba",
    architecture="MambaForCausalLM",
    summary="Mamba",
    to_spec=mamba_to_spec,
    to_config=mamba_to_config,
    rules=RULES,
    prefix="backbone.",
    pad_learns=True,
    canonical=canonical_state_space,
)
FALCON_MAMBA = Importer(
    model_type="falcon_mamba",
    architecture="FalconMambaForCausalLM",
    summary="Falcon Mamba",
    to_spec=falcon_to_spec,
    to_config=falcon_to_config,
    rules=RULES,
    prefix="backbone.",
    pad_learns=True,
    canonical=canonical_state_space,
)
MAMBA2 = Importer(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    summary="Mamba-2",
    to_spec=mamba2_to_spec,
    to_config=mamba2_to_config,
    rules=RULES,
    prefix="backbone.",
    pad_learns=True,
    canonical=canonical_state_space,
)
