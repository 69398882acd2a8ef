"""The core's own plugin: realism rules for the words that every model has, and the HuggingFace target.

A rule reads the complete IR and yields findings: what is legal, but seldom meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from eulerstack.compiler.cost import count_parameters
from eulerstack.compiler.phases import phase_context
from eulerstack.errors import Finding, msg
from eulerstack.plugins.hookspecs import hookimpl
from eulerstack.plugins.primitive import Rule, Target

HEAD_DIMS = (32, 256)
TARGET_TOLERANCE = 0.30
GATE_CAPACITIES = (0.1, 0.9)
SPARE_ROWS = 1.25

# Tokens of well-known tokenizers, by a pattern of their names; the first that fits counts.
TOKENIZERS = (
    (r"^bpe-32k$", 32_000),
    (r"(^|/)(distil)?gpt-?2", 50_257),
    (r"llama-?3", 128_256),
    (r"llama-?2|tinyllama|mistral-7b-(instruct-)?v0\.[12]", 32_000),
    (r"mistral-7b-(instruct-)?v0\.3", 32_768),
    (r"qwen3", 151_669),
    (r"qwen2\.5", 151_665),
    (r"qwen2", 151_646),
    (r"gemma-?2|gemma-[27]b", 256_000),
    (r"olmo-?2", 100_278),
)


def _head_dim(ir: Any) -> Iterator[Finding]:
    low, high = HEAD_DIMS
    head_dim = ir.model["head_dim"]
    if not low <= head_dim <= high:
        yield Finding(
            "head_dim",
            msg("head_dim is {head_dim}; published models have {low} to {high}", head_dim=head_dim, low=low, high=high),
            "model.head_dim",
        )


def _target_params(ir: Any) -> Iterator[Finding]:
    target = ir.model["target_params"]
    if target is None:
        return
    count = count_parameters(ir)
    deviation = count / target - 1
    if abs(deviation) > TARGET_TOLERANCE:
        yield Finding(
            "target_params",
            msg("the model has {count} parameters, {percent} % off target_params", count=f"{count:,}",
                percent=f"{100 * deviation:+.0f}"),
            "model.target_params",
        )  # fmt: skip


def _tokenizer(ir: Any) -> Iterator[Finding]:
    name, rows = ir.tokenizer_contract["pretrained"] or "", ir.model["vocab_size"]
    tokens = next((size for pattern, size in TOKENIZERS if re.search(pattern, name.lower())), None)
    if tokens is not None and rows < tokens:
        yield Finding(
            "tokenizer",
            msg("{name} has {tokens} tokens, but vocab_size is {rows}: its last tokens have no embedding",
                name=name, tokens=tokens, rows=rows),
            "model.vocab_size",
        )  # fmt: skip
    elif tokens is not None and rows > SPARE_ROWS * tokens:
        yield Finding(
            "tokenizer",
            msg("{name} has {tokens} tokens; {spare} of the {rows} embeddings are never used",
                name=name, tokens=tokens, rows=rows, spare=rows - tokens),
            "model.vocab_size",
        )  # fmt: skip


def _phases(ir: Any) -> Iterator[Finding]:
    longest = phase_context(ir)
    length = ir.model["max_seq_len"]
    if longest > length:
        yield Finding(
            "phases",
            msg("phases fill a context of up to {tokens} tokens beside the prompt, but max_seq_len is {length}",
                tokens=longest, length=length),
            "execution_modes",
        )  # fmt: skip


def _depth_gating(ir: Any) -> Iterator[Finding]:
    low, high = GATE_CAPACITIES
    capacities = {layer.depth_gating["capacity"] for layer in ir.layers if layer.depth_gating is not None}
    for capacity in sorted(capacities):
        if not low <= capacity <= high:
            yield Finding(
                "depth_gating",
                msg("a layer processes {percent} % of the tokens; gates pay off between {low} and {high} %",
                    percent=f"{100 * capacity:g}", low=f"{100 * low:g}", high=f"{100 * high:g}"),
                "layer_schedule",
            )  # fmt: skip
    if capacities and all(layer.depth_gating is not None for layer in ir.layers):
        yield Finding(
            "depth_gating",
            msg("every layer is gated; models train better where every other layer sees all tokens"),
            "layer_schedule",
        )


def _shape_change(ir: Any) -> Iterator[Finding]:
    width = ir.model["d_model"]
    for name, d_out in dict.fromkeys((layer.template, layer.shape_change["d_out"])
                                     for layer in ir.layers if layer.shape_change is not None):  # fmt: skip
        if d_out >= width:
            yield Finding(
                "shape_change",
                msg("d_out {d_out} is not below d_model {d_model}; published models narrow their inner layers",
                    d_out=d_out, d_model=width),
                f"layer_templates.{name}.shape_change.d_out",
            )  # fmt: skip


RULES = (
    Rule("head_dim", "head_dim lies between 32 and 256", _head_dim),
    Rule("target_params", "the parameter count is within 30 % of target_params", _target_params),
    Rule("tokenizer", "vocab_size fits the tokenizer", _tokenizer),
    Rule("phases", "the budgets of the phases fit into max_seq_len", _phases),
    Rule("depth_gating", "gates let a usual share of the tokens pass, and not all layers have one", _depth_gating),
    Rule("shape_change", "layers with a width of their own are narrower than the model", _shape_change),
)


@hookimpl
def eulerstack_rules() -> tuple[Rule, ...]:
    """The core's realism rules."""
    return RULES


@hookimpl
def eulerstack_targets() -> tuple[Target, ...]:
    """The one back end of the core."""
    return (
        Target(
            "huggingface",
            "a HuggingFace model directory with its own modeling code",
            "eulerstack.compiler.writer:write_huggingface",
        ),
    )
