"""DeepSeek-V4: attention to a window and to compressed blocks, hyper-connections, experts in every layer, of which the
first ones choose by token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import Importer, StackRule, WeightRule
from eulerstack_mixers.importers.common import GATED_ACTIVATIONS, finish_spec, hf_activation
from eulerstack_mixers.importers.experts import canonical_experts, expert_params, expert_rules, read_experts
from eulerstack_mixers.importers.reader import ConfigReader, is_number
from eulerstack_mixers.importers.rope import read_rope, write_rope

DEFAULTS = {
    "vocab_size": 129280,
    "hidden_size": 4096,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 43,
    "num_attention_heads": 64,
    "num_key_value_heads": 1,
    "head_dim": 512,
    "q_lora_rank": 1024,
    "num_experts_per_tok": 6,
    "n_routed_experts": 256,
    "scoring_func": "sqrtsoftplus",
    "routed_scaling_factor": 1.5,
    "max_position_embeddings": 1048576,
    "rope_theta": 10000.0,
    "compress_rope_theta": 160000.0,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "swiglu_limit": 10.0,
    "sliding_window": 128,
    "o_groups": 8,
    "o_lora_rank": 1024,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 512,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
}
HASHED_LAYERS = 3
ROTATED = 64 / 512
RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
# config.json's layer types, and the older ratios of compression, in the language's words
KINDS = {
    "compressed_sparse_attention": "csa",
    "heavily_compressed_attention": "hca",
    "sliding_attention": "shared",
}
RATIOS = {4: "compressed_sparse_attention", 128: "heavily_compressed_attention", 0: "sliding_attention"}
ROUTINGS = {"hash_moe": "hash", "moe": "learned"}
SCORES = {"sqrtsoftplus": "sqrt_softplus", "sigmoid": "sigmoid"}


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a DeepseekV4ForCausalLM's config.json."""
    reader = ConfigReader(config, DEFAULTS)
    n_layers, n_heads = reader.layers("num_hidden_layers"), reader.integer("num_attention_heads")
    reader.require("num_key_value_heads", 1, msg("all heads share one head of keys"))
    head_dim, max_seq_len = reader.integer("head_dim"), reader.integer("max_position_embeddings")
    model: dict[str, Any] = {
        "name": "deepseek_v4",
        "d_model": reader.integer("hidden_size"),
        "vocab_size": reader.integer("vocab_size"),
        "max_seq_len": max_seq_len,
        "n_heads": n_heads,
        "n_kv_heads": 1,
        "head_dim": head_dim,
        "d_ff": reader.integer("moe_intermediate_size"),
        "norm_eps": reader.positive("rms_norm_eps"),
        "initializer_range": reader.positive("initializer_range"),
    }
    part = _rotated(reader, head_dim)
    embedding = {
        "type": "learned",
        "positional": "rope",
        "rope_interleaved": True,
        "rope_partial_factor": part,
        **read_rope(_rope_reader(reader, part), max_seq_len, part),
    }
    streams = {
        "expand": reader.integer("hc_mult"),
        "mixing": "birkhoff",
        "sinkhorn_iters": reader.integer("hc_sinkhorn_iters"),
        "eps": reader.positive("hc_eps"),
    }
    kinds = _types(reader, "layer_types", KINDS, _default_kinds(reader, n_layers))
    routings = _types(reader, "mlp_layer_types", ROUTINGS, _default_routings(reader, n_layers))
    attention, experts = _attention(reader), _experts(reader)
    layers = []
    for kind, routing in zip(kinds, routings, strict=True):
        template = {
            "mixer": {"type": "attention", "attention": attention[kind]},
            "ffn": experts[routing],
            "norm": {"type": "rmsnorm", "position": "pre"},
            "residual": {"type": "hyper_connection", "hyper": streams},
        }
        layers.append((kind if routing == "learned" else f"{kind}_hash", template))
    head = {"type": "causal_lm", "tie_weights": reader.boolean("tie_word_embeddings")}
    return finish_spec(reader, "deepseek_v4", model, embedding, layers, head)


def _types(reader: ConfigReader, key: str, known: Mapping[str, str], default: Sequence[str]) -> list[str]:
    """The language's word for the type of each layer under `key`, `default` standing in where it is absent."""
    n_layers = len(default)
    found: Any = default if reader[key] is None else reader[key]
    if not isinstance(found, (list, tuple)) or len(found) < n_layers:
        reader.wrong(key, found, msg("a list of {count} layer types", count=n_layers))
        found = ()
    words = []
    for index, name in enumerate(found[:n_layers]):
        if not isinstance(name, str) or name not in known:
            reader.unknown(f"{key}[{index}]", name, known)
        words.append(
            known.get(name, next(iter(known.values()))) if isinstance(name, str) else next(iter(known.values()))
        )
    return words or [next(iter(known.values()))] * n_layers


def _default_kinds(reader: ConfigReader, n_layers: int) -> list[str]:
    """By older ratios where there are some; else two of hca, and then both kinds in turn."""
    ratios = reader["compress_ratios"]
    if isinstance(ratios, list) and len(ratios) >= n_layers:
        return [RATIOS.get(ratio, str(ratio)) for ratio in ratios[:n_layers]]
    sparse, heavy, _ = KINDS
    return [sparse if index >= 2 and index % 2 else heavy for index in range(n_layers)]


def _default_routings(reader: ConfigReader, n_layers: int) -> list[str]:
    """Hashes in the first `num_hash_layers`."""
    hashed = HASHED_LAYERS if reader["num_hash_layers"] is None else reader.integer("num_hash_layers", minimum=0)
    return ["hash_moe" if index < hashed else "moe" for index in range(n_layers)]


def _attention(reader: ConfigReader) -> dict[str, dict[str, Any]]:
    """The attention block of each kind of layers."""
    rates = reader["compress_rates"] or {}
    if not isinstance(rates, Mapping):
        reader.wrong("compress_rates", rates, msg("a mapping or null"))
        rates = {}
    older = {"compressed_sparse_attention": "compress_rate_csa", "heavily_compressed_attention": "compress_rate_hca"}
    lengths = {}
    for name in RATES:
        kind = KINDS[name]
        # The older word wins, as in the class.
        given = reader[older[name]] if reader[older[name]] is not None else rates.get(name, RATES[name])
        lengths[kind] = ConfigReader({name: given}, {}).integer(name)
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            reader.wrong(f"compress_rates.{name}", given, msg("a whole number above 0"))
    common = {
        "window": reader.integer("sliding_window"),
        "q_latent_dim": reader.integer("q_lora_rank"),
        "o_latent_dim": reader.integer("o_lora_rank"),
        "o_groups": reader.integer("o_groups"),
        "attention_sinks": {"n_per_head": 1, "learnable": True},
        "attn_drop": reader.probability("attention_dropout"),
    }
    indexer = {
        "arch": "lightning",
        "n_heads": reader.integer("index_n_heads"),
        "d_per_head": reader.integer("index_head_dim"),
        # The class adds no loss of its own.
        "kl_coef": 0.0,
    }
    chosen = {"top_k_blocks": reader.integer("index_topk"), "indexer": indexer}
    return {
        "csa": {**common, "compression": {"type": "csa", "m_block": lengths["csa"], **chosen}},
        "hca": {**common, "compression": {"type": "hca", "m_block": lengths["hca"]}},
        "shared": {**common, "compression": {"type": "shared"}, "rope": _main_rope(reader)},
    }


def _main_rope(reader: ConfigReader) -> dict[str, Any]:
    """The rotary words of layers without blocks, where they differ from the others'."""
    given = reader["rope_scaling"] or reader["rope_parameters"]
    words = given.get("main") if isinstance(given, Mapping) else None
    if not isinstance(words, Mapping):
        return {"theta": reader.positive("rope_theta"), "scaling": None}
    if words.get("rope_type", "default") != "default":
        reader.unknown("rope_parameters.main.rope_type", words["rope_type"], ("default",))
    flat = ConfigReader({"rope_theta": words.get("rope_theta", 10000.0)}, {})
    flat.problems = reader.problems
    return {"theta": flat.positive("rope_theta"), "scaling": None}


def _experts(reader: ConfigReader) -> dict[str, dict[str, Any]]:
    """The ffn of both kinds of routing."""
    shared = read_experts(
        reader,
        "n_routed_experts",
        "moe_intermediate_size",
        router=reader.choice("scoring_func", SCORES),
        normalize_top_k=True,
        routed_scale=reader.positive("routed_scaling_factor"),
        shared_experts=1,
        d_shared=reader.integer("moe_intermediate_size"),
        gate_limit=reader.positive("swiglu_limit"),
        activation=reader.choice("hidden_act", GATED_ACTIVATIONS),
    )
    return {
        "hash": {**shared, "routing": {"type": "hash"}},
        "learned": {**shared, "bias_correction": {"enabled": True}},
    }


def _rotated(reader: ConfigReader, head_dim: int) -> float:
    """The part of a head that rotates."""
    width, part = reader["qk_rope_head_dim"], reader["partial_rotary_factor"]
    if part is None:
        part = ROTATED if width is None else reader.integer("qk_rope_head_dim") / head_dim
    if not is_number(part) or not 0 < part <= 1:
        reader.wrong("partial_rotary_factor", part, msg("a number above 0"))
        return 1.0
    return float(part)


def _rope_reader(reader: ConfigReader, part: float) -> ConfigReader:
    """The rotary words of compressed layers as other families have them; its problems are those of `reader`."""
    given = reader["rope_scaling"] or reader["rope_parameters"] or {}
    if not isinstance(given, Mapping):
        given = {"rope_type": given}
    words = given.get("compress")
    if not isinstance(words, Mapping):
        words = {name: value for name, value in given.items() if name not in ("main", "compress")}
        words["rope_theta"] = reader["compress_rope_theta"]
        if words.get("rope_type", words.get("type")) == "yarn":
            # The class turns yarn's own factor on the scores off.
            words.setdefault("attention_factor", 1.0)
    flat = ConfigReader({"rope_parameters": {"partial_rotary_factor": part, **words}}, {})
    flat.problems = reader.problems
    return flat


def to_config(ir: Any) -> dict[str, Any]:
    """The config.json of the DeepSeek-V4 that `ir` describes, if it describes one."""
    attention = [layer.mixer.params for layer in ir.layers]
    blocks = [params.get("compression") or {} for params in attention]
    rates = {name: next((block["m_block"] for block in blocks if block.get("type") == KINDS[name]), rate)
             for name, rate in RATES.items()}  # fmt: skip
    alone: Mapping[str, Any] = next(
        (params for params in attention if (params.get("compression") or {}).get("type") == "shared"), {}
    )
    main_theta = (alone.get("rope") or {}).get("theta", 10000.0)
    sparse: Mapping[str, Any] = next((block for block in blocks if block.get("type") == "csa"), {})
    indexer = sparse.get("indexer") or {}
    mixture, streams = expert_params(ir), ir.layers[0].residual.params
    part = ir.position.params.get("rope_partial_factor", ROTATED)
    rope = {**write_rope(ir.position.params, ir.model["max_seq_len"]), "partial_rotary_factor": part}
    kinds = {kind: name for name, kind in KINDS.items()}
    first = attention[0]
    return {
        "vocab_size": ir.model["vocab_size"],
        "hidden_size": ir.model["d_model"],
        "moe_intermediate_size": mixture.get("d_expert", ir.model["d_ff"]),
        "num_hidden_layers": len(ir.layers),
        "num_attention_heads": ir.model["n_heads"],
        "num_key_value_heads": 1,
        "head_dim": ir.model["head_dim"],
        "q_lora_rank": first.get("q_latent_dim") or 1,
        "num_experts_per_tok": mixture.get("top_k", 1),
        "n_routed_experts": mixture.get("experts", 1),
        "n_shared_experts": 1,
        "scoring_func": {word: name for name, word in SCORES.items()}.get(mixture.get("router", ""), "sqrtsoftplus"),
        "norm_topk_prob": True,
        "routed_scaling_factor": mixture.get("routed_scale", 1.0),
        "max_position_embeddings": ir.model["max_seq_len"],
        "layer_types": [kinds.get(block.get("type", ""), "heavily_compressed_attention") for block in blocks],
        "mlp_layer_types": [
            "hash_moe" if (layer.ffn.params.get("routing") or {}).get("type") == "hash" else "moe"
            for layer in ir.layers
        ],
        "compress_rates": rates,
        "compress_rope_theta": ir.position.params.get("rope_theta", 160000.0),
        "partial_rotary_factor": part,
        "rope_parameters": {
            "main": {"rope_type": "default", "rope_theta": main_theta, "partial_rotary_factor": part},
            "compress": rope,
        },
        "hc_mult": streams.get("expand", 1),
        "hc_sinkhorn_iters": streams.get("sinkhorn_iters") or 20,
        "hc_eps": streams.get("eps", 1e-6),
        "swiglu_limit": mixture.get("gate_limit") or 10.0,
        "sliding_window": first.get("window") or 128,
        "o_groups": first.get("o_groups") or 1,
        "o_lora_rank": first.get("o_latent_dim") or 1,
        "index_n_heads": indexer.get("n_heads", 64),
        "index_head_dim": indexer.get("d_per_head", 128),
        "index_topk": sparse.get("top_k_blocks") or 512,
        "num_nextn_predict_layers": 0,
        "hidden_act": hf_activation(mixture.get("activation", "swiglu")),
        "initializer_range": ir.model["initializer_range"],
        "rms_norm_eps": ir.model["norm_eps"],
        "tie_word_embeddings": ir.embedding["tie_word_embeddings"],
        "attention_dropout": first.get("attn_drop", 0.0),
        "dtype": ir.model["dtype"],
    }


def canonical(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` with one word for each meaning; a table that came with the weights follows from no salt, and how
    an indexer is taught is no part of a checkpoint."""
    result = {name: dict(part) for name, part in canonical_experts(layer).items()}
    compression = result["mixer"].get("compression") or {}
    if compression.get("indexer"):
        indexer = {word: value for word, value in compression["indexer"].items() if word != "kl_coef"}
        result["mixer"]["compression"] = {**compression, "indexer": indexer}
    if "routing" in result["ffn"]:
        result["ffn"]["routing"] = result["ffn"]["routing"]["type"]
    return result


_THERE, _MIXER, _FFN = "model.layers.{i}.attn", "model.layers.{i}.mixer", "model.layers.{i}.ffn"
_NAMES = {
    "wq_a": "q_a_proj",
    "wq_b": "q_b_proj",
    "q_norm": "q_a_norm",
    "wkv": "kv_proj",
    "norm": "kv_norm",
    "wo_a": "o_a_proj",
    "wo_b": "o_b_proj",
    "indexer.wq_b": "indexer.q_proj",
    "indexer.weights_proj": "indexer.weights_proj",
}
_BLOCK_NAMES = {"wkv": "kv_proj", "wgate": "gate_proj", "norm": "kv_norm"}


def _rules() -> tuple[WeightRule | StackRule, ...]:
    modules = dict(_NAMES)
    tensors = {f"{_THERE}.attn_sink": f"{_MIXER}.sinks.logits"}
    for place in ("compressor", "indexer.compressor"):
        modules |= {f"{place}.{there}": f"{place}.{here}" for there, here in _BLOCK_NAMES.items()}
        tensors[f"{_THERE}.{place}.ape"] = f"{_MIXER}.{place}.position_bias"
    for there, here in (("attn", "mixer"), ("ffn", "ffn")):
        for word in ("fn", "base", "scale"):
            tensors[f"model.layers.{{i}}.hc_{there}_{word}"] = f"model.layers.{{i}}.residual.{here}_streams.{word}"
    for word in ("hc_fn", "hc_base", "hc_scale"):
        tensors[f"model.hc_head.{word}"] = f"model.stream_ends.0.{word}"
    tensors[f"{_FFN}.gate.tid2eid"] = f"{_FFN}.router.table"
    tensors[f"{_FFN}.gate.bias"] = f"{_FFN}.router.bias"
    shared = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    return (
        WeightRule("model.embed_tokens", ("model.embed_tokens",)),
        WeightRule("model.norm", ("model.norm",)),
        WeightRule("head", ("lm_head",)),
        *(WeightRule(f"{_THERE}.{there}", (f"{_MIXER}.{here}",)) for there, here in modules.items()),
        *(
            WeightRule(there, (here,), tensors=True, flat=there.endswith(".attn_sink"))
            for there, here in tensors.items()
        ),
        *expert_rules(_FFN, inputs=("w1", "w3"), output="w2", fused=False),
        *(WeightRule(f"{_FFN}.shared_experts.{there}", (f"{_FFN}.shared.{here}",)) for there, here in shared.items()),
        WeightRule("model.layers.{i}.attn_norm", ("model.layers.{i}.mixer_norm",)),
        WeightRule("model.layers.{i}.ffn_norm", ("model.layers.{i}.ffn_norm",)),
    )


DEEPSEEK_V4 = Importer(
    model_type="deepseek_v4",
    architecture="DeepseekV4ForCausalLM",
    summary="DeepSeek-V4",
    to_spec=to_spec,
    to_config=to_config,
    rules=_rules(),
    prefix="model.",
    canonical=canonical,
)
