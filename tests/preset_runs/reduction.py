"""A preset made small by assignments: its own file, whatever it says, at a width that trains in a second.

What makes a preset what it is stays: every kind of layer, every word but sizes. A run of equal layers becomes one
layer, an entry of the schedule that says the same as one before it goes, and sizes become those below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eulerstack.dsl.paths import is_reserved
from eulerstack.dsl.source import Spec

HEAD_DIM = 8
CONTEXT = 256
# Sizes by the name of their word, wherever in a template it stands.
SIZES: dict[str, int] = {
    "window": 16,
    "window_dilation": 4,
    "latent_dim": 16,
    "rope_head_dim": 4,
    "q_latent_dim": 16,
    "o_latent_dim": 8,
    "o_groups": 2,
    "m_block": 4,
    "top_k_blocks": 4,
    "d_per_head": 8,
    "d_expert": 16,
    "hidden": 16,
    "d_out": 16,
    "chunk_size": 8,
    "filter_hidden": 8,
    "filter_emb": 5,
    "max_tokens": 4,
    "original_max_seq_len": 64,
    "d_ff": 32,
}
MOST_HEADS = 4


def assignments(spec: Spec) -> list[str]:
    """What `--set` is given to make a small model of a spec."""
    model = spec["model"]
    heads = min(MOST_HEADS, model["n_heads"])
    kv_heads = max(1, heads * model.get("n_kv_heads", model["n_heads"]) // model["n_heads"])
    while heads % kv_heads:
        kv_heads -= 1
    changes: dict[str, Any] = {
        "model.d_model": heads * HEAD_DIM,
        "model.n_heads": heads,
        "model.max_seq_len": CONTEXT,
        "model.dtype": "float32",
        "model.target_params": None,
        "layer_schedule": _schedule(spec["layer_schedule"]),
    }
    for word, value in (("n_kv_heads", kv_heads), ("head_dim", HEAD_DIM), ("d_ff", SIZES["d_ff"])):
        if word in model:
            changes[f"model.{word}"] = value
    for section in ("layer_templates", "execution_modes", "embedding"):
        changes |= dict(_sizes(section, spec.get(section)))
    return [f"{path}={json.dumps(value)}" for path, value in changes.items()]


def _schedule(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each kind of entry once, in the order in which it first comes, its runs of one layer each; two at least."""
    kinds: list[dict[str, Any]] = []
    for entry in entries:
        kind = _single(entry)
        if kind not in kinds:
            kinds.append(kind)
    return [kinds[0] | {"repeat": 2}] if len(kinds) == 1 and "template" in kinds[0] else kinds


def _single(entry: Any, word: str = "") -> Any:
    if isinstance(entry, Mapping):
        return {key: _single(value, key) for key, value in entry.items() if key != "repeat"}
    if isinstance(entry, (list, tuple)):
        return [_single(value) for value in entry]
    return min(entry, SIZES[word]) if word in SIZES and isinstance(entry, int) else entry


def _sizes(path: str, value: Any) -> Iterator[tuple[str, int]]:
    """(path, size) of every size below a path that is larger than the small one."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_reserved(str(key)):
                continue
            if key in SIZES and isinstance(item, int) and item > SIZES[key]:
                yield f"{path}.{key}", SIZES[key]
            else:
                yield from _sizes(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _sizes(f"{path}[{index}]", item)
