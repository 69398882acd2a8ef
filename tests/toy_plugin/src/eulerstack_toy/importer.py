"""The family `toy`: checkpoints of a model whose layers are averages and maxout blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.errors import CompatibilityError, Diagnostic, Message
from eulerstack.plugins import Importer, WeightRule


def to_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a toy config.json, every word stated; what is not a number is refused by the language's schema."""
    if config.get("stochastic"):
        what = Message("stochastic averages can't be imported", (), "eulerstack_toy")
        fix = Message("Import a checkpoint whose `stochastic` is false", (), "eulerstack_toy")
        raise CompatibilityError(
            [Diagnostic("CompatibilityError", what, fix, "writing-a-plugin.md#an-importer", "stochastic")]
        )
    return {
        "schema_version": 1,
        "model": {
            "name": "toy",
            "d_model": config["width"],
            "vocab_size": config["tokens"],
            "max_seq_len": config["context"],
            "n_heads": 1,
            "d_ff": config["inner"],
            "dtype": config.get("dtype", "float32"),
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "none"},
        "layer_templates": {
            "decoder": {
                "mixer": {"type": "vendor.toy.ema", "vendor.toy.ema": {"half_life": config["half_life"]}},
                "ffn": {"type": "vendor.toy.maxout", "vendor.toy.maxout": {"pieces": config["pieces"]}},
                "norm": {"type": "vendor.toy.power", "vendor.toy.power": {"p": 2.0}},
            }
        },
        "layer_schedule": [{"template": "decoder", "repeat": config["layers"]}],
        "head": {"type": "causal_lm", "tie_weights": True},
    }


def to_config(ir: Any) -> dict[str, Any]:
    """The toy config.json that says the same, as far as the family can."""
    first = ir.layers[0]
    return {
        "width": ir.model["d_model"],
        "tokens": ir.model["vocab_size"],
        "context": ir.model["max_seq_len"],
        "inner": ir.model["d_ff"],
        "layers": len(ir.layers),
        "half_life": first.mixer.params.get("half_life", 32.0),
        "pieces": first.ffn.params.get("pieces", 2),
        "dtype": ir.model["dtype"],
    }


TOY = Importer(
    model_type="toy",
    architecture="ToyForCausalLM",
    summary="averages and maxout blocks",
    to_spec=to_spec,
    to_config=to_config,
    rules=(
        WeightRule("tokens", ("model.embed_tokens",)),
        WeightRule("blocks.{i}.gates", ("model.layers.{i}.mixer.in_proj", "model.layers.{i}.mixer.gate_proj")),
        WeightRule("blocks.{i}.out", ("model.layers.{i}.mixer.out_proj",)),
        WeightRule("blocks.{i}", ("model.layers.{i}.mixer",)),
        WeightRule("blocks.{i}.up", ("model.layers.{i}.ffn.up_proj",), transpose=True),
        WeightRule("blocks.{i}.down", ("model.layers.{i}.ffn.down_proj",), transpose=True),
        WeightRule("blocks.{i}.before", ("model.layers.{i}.mixer_norm",)),
        WeightRule("blocks.{i}.between", ("model.layers.{i}.ffn_norm",)),
        WeightRule("last", ("model.norm",)),
    ),
)
