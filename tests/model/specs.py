"""Small specs for the tests of the model, and what every test does with them."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch

import eulerstack as es

torch.set_num_threads(1)

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


def built(spec: dict[str, Any], seed: int = 0) -> Any:
    """The model of a spec with lively weights: every parameter random at unit scale, the same for the same name."""
    model = es.compile_to_hf_model(es.normalize_to_ir(spec), seed=seed)
    enliven(model)
    return model


def enliven(model: torch.nn.Module) -> None:
    """Random values for every parameter, norms and biases included, depending on its name and shape alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(noise * scale + (1.0 if parameter.ndim == 1 and "weight" in name else 0.0))


def tokens(batch: int = 2, time: int = 17, seed: int = 0) -> torch.Tensor:
    """Random token ids, (batch, time)."""
    return torch.randint(0, VOCAB, (batch, time), generator=torch.Generator().manual_seed(seed))
