"""The small spec that every claim is tried on, without torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

VOCAB = 53
Spec = dict[str, Any]


def tiny_spec(**sections: Any) -> Spec:
    """A three-layer attention model of odd sizes; `sections` replace whole sections."""
    spec: Spec = {
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


def changed(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """A copy of `spec` with the values at the given dotted paths replaced; list entries by their index.

    A part of a path between backquotes may hold dots itself: "layer_templates.decoder.mixer.`vendor.acme.ema`.decay".
    """
    result = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = split_path(path)
        node: Any = result
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = copy.deepcopy(value)
    return result


def split_path(path: str) -> list[str]:
    """The keys of a dotted path; what stands between backquotes is one key."""
    keys: list[str] = []
    for index, part in enumerate(path.split("`")):
        keys += [part] if index % 2 else [key for key in part.split(".") if key]
    return keys
