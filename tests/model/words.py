"""Small specs, without torch."""

from __future__ import annotations

import copy
from typing import Any

VOCAB = 53


def tiny_spec(**sections: Any) -> dict[str, Any]:
    """A three-layer attention model of odd sizes; `sections` replace whole sections."""
    spec: dict[str, Any] = {
        "schema_version": 1,
        "model": {
            "name": "tiny",
            "d_model": 36,
            "vocab_size": VOCAB,
            "max_seq_len": 64,
            "n_heads": 3,
            "n_kv_heads": 1,
            "d_ff": 50,
            "dtype": "float32",
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {
            "decoder": {"mixer": {"type": "attention", "attention": {}}, "ffn": {"type": "gated_mlp"}},
        },
        "layer_schedule": [{"template": "decoder", "repeat": 3}],
        "head": {"type": "causal_lm"},
    }
    spec.update(copy.deepcopy(sections))
    return spec


def changed(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `spec` with the values at the given dotted paths replaced; list entries by their index."""
    result = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = result
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = copy.deepcopy(value)
    return result
