"""The head of several tokens, which is no mixer but stands in the same tables."""

from __future__ import annotations

from typing import Any

from tests.model.case import Case
from tests.model.words import changed, tiny_spec

MTP = {"head": {"type": "causal_lm_mtp"}}


def spec(**mtp: Any) -> dict[str, Any]:
    """Three layers and the head with these words of `mtp`."""
    return changed(tiny_spec(), {"head": {"type": "causal_lm_mtp", "mtp": mtp}})


def own_template(**mtp: Any) -> dict[str, Any]:
    """Modules of a template that the schedule does without: streams, a window, experts."""
    drafts = {
        "mixer": {"type": "attention", "attention": {"window": 5}},
        "ffn": {"type": "moe", "experts": 4, "top_k": 2, "load_balance_coef": 0.1},
        "residual": {"type": "hyper_connection", "hyper": {"expand": 2}},
        "norm": {"type": "layernorm", "position": "sandwich"},
    }
    return changed(spec(head_template="drafts", **mtp), {"layer_templates.drafts": drafts})


VARIANTS = {"mtp": spec(n_predict=2), "mtp_template": own_template(head_layers=2)}
TRANSFORMED: set[str] = set()
OTHER = {"layer_templates.other": {"mixer": {"type": "attention"}, "ffn": {"type": "mlp"}}}


def _case(effect: str, word: str, value: Any, **given: Any) -> Case:
    return Case(effect, {f"head.{word}": value}, {**MTP, **given})


CASES = {
    "head.causal_lm_mtp.tie_weights": _case("parameters", "tie_weights", False),
    "head.causal_lm_mtp.logit_softcap": _case("function", "logit_softcap", 1.5),
    "head.causal_lm_mtp.logit_scale": _case("function", "logit_scale", 0.5),
    "head.causal_lm_mtp.n_predict": _case("modules", "mtp.n_predict", 2),
    "head.causal_lm_mtp.head_layers": _case("modules", "mtp.head_layers", 2),
    "head.causal_lm_mtp.head_template": _case("modules", "mtp.head_template", "other", **OTHER),
    "head.causal_lm_mtp.train_loss_weight": _case("loss", "mtp.train_loss_weight", 0.7),
}
