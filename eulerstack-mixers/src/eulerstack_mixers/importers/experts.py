"""What the families with experts share: their words, and the rows of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eulerstack.errors import msg
from eulerstack.plugins import StackRule, WeightRule
from eulerstack_mixers.importers.common import canonical_layer
from eulerstack_mixers.importers.reader import ConfigReader

# Words of a mixture that decide how it is trained, of which these families' classes know nothing or something else.
_TRAINING_WORDS = ("load_balance_coef", "z_loss", "router_init_std")


def read_experts(reader: ConfigReader, experts: str, d_expert: str, **words: Any) -> dict[str, Any]:
    """The ffn of a layer with experts, whose number and width stand under these keys of config.json; `words` on top.

    The classes add a loss for balance only where they are asked to hand out the router's logits, and then another one.
    """
    reader.require("output_router_logits", False, msg("the class's loss for balance pools all layers first"))
    return {
        "type": "moe",
        "experts": reader.integer(experts),
        "top_k": reader.integer("num_experts_per_tok"),
        "router": "softmax",
        "d_expert": reader.integer(d_expert),
        "load_balance_coef": 0.0,
        **words,
    }


def read_groups(reader: ConfigReader, **words: Any) -> dict[str, Any]:
    """The words of DeepSeek-V3's router: sigmoid, groups, a correction of the load, a scale."""
    groups, limit = reader.integer("n_group"), reader.integer("topk_group")
    scale = reader.positive("routed_scaling_factor")
    return {
        "router": "sigmoid",
        "normalize_top_k": reader.boolean("norm_topk_prob"),
        "routed_scale": scale,
        "bias_correction": {"enabled": True},
        **({} if groups == 1 else {"n_groups": groups, "balance": {"group_limit": limit}}),
        **words,
    }


def write_groups(params: Mapping[str, Any]) -> dict[str, Any]:
    """config.json's words for that router."""
    return {
        "n_group": params.get("n_groups", 1),
        "topk_group": (params.get("balance") or {}).get("group_limit") or 1,
        "norm_topk_prob": params.get("normalize_top_k", True),
        "routed_scaling_factor": params.get("routed_scale", 1.0),
        "num_experts_per_tok": params.get("top_k", 1),
    }


def expert_params(ir: Any) -> Mapping[str, Any]:
    """The words of the first mixture of `ir`; none where there is none."""
    return next((layer.ffn.params for layer in ir.layers if layer.ffn.type == "moe"), {})


def expert_layers(ir: Any) -> list[bool]:
    """Which layers are mixtures."""
    return [layer.ffn.type == "moe" for layer in ir.layers]


def dense_activation(ir: Any) -> str:
    """The activation of the first layer that has one."""
    found = (layer.ffn.params["activation"] for layer in ir.layers if "activation" in layer.ffn.params)
    return next(found, "swiglu")


def canonical_experts(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer` with one word for each meaning, and without how experts are trained."""
    result = {name: dict(part) for name, part in canonical_layer(layer).items()}
    ffn = result["ffn"]
    if ffn["type"] != "moe":
        return result
    for word in _TRAINING_WORDS:
        ffn.pop(word, None)
    balance = dict(ffn.pop("balance", {}))
    limited = balance.get("group_limit") is not None and balance["group_limit"] < ffn["n_groups"]
    ffn["group_limit"] = balance["group_limit"] if limited else None
    ffn["n_groups"] = ffn["n_groups"] if limited else 1
    ffn["bias_correction"] = dict(ffn.get("bias_correction", {})).get("enabled", False)
    # What all shared experts are together is one unit, however many they are called.
    ffn.pop("shared_experts", None)
    return result


def expert_rules(
    there: str,
    here: str = "model.layers.{i}.ffn",
    *,
    router: str = "gate",
    inputs: Sequence[str] = ("gate_proj", "up_proj"),
    output: str = "down_proj",
    fused: bool = True,
) -> tuple[WeightRule | StackRule, ...]:
    """Rows for the mixture `there`, whose experts' matrices are called so; `fused` where whole tensors of experts stand
    under the same names as single ones."""
    first = "gate_up_proj" if len(inputs) > 1 else "up_proj"
    return (
        WeightRule(f"{there}.{router}.e_score_correction_bias", (f"{here}.router.bias",), tensors=True),
        WeightRule(f"{there}.{router}", (f"{here}.router",)),
        StackRule(
            f"{here}.experts.{first}",
            tuple(f"{there}.experts.{{e}}.{name}.weight" for name in inputs),
            f"{there}.experts.{first}" if fused else "",
        ),
        StackRule(
            f"{here}.experts.down_proj",
            (f"{there}.experts.{{e}}.{output}.weight",),
            f"{there}.experts.down_proj" if fused else "",
        ),
    )


def shared_rules(there: str, here: str = "model.layers.{i}.ffn.shared") -> tuple[WeightRule, ...]:
    """Rows for the experts that every token passes through."""
    return tuple(WeightRule(f"{there}.{name}", (f"{here}.{name}",)) for name in ("gate_proj", "up_proj", "down_proj"))
