"""Training step and cached decode step against transformers' LlamaForCausalLM of the same weights.

Both models live in one process with the same dimensions, dtype and weights, which is checked by comparing logits. Steps
alternate: ours, theirs, and theirs once more from a second copy, whose ratio to the first shows the noise.

    python benchmarks/llama_step.py [--repetitions 15] [--threads 1] [--output benchmarks/results/llama_step.md]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from common import (
    RATIO_COLUMNS,
    Stopwatch,
    Timing,
    circumstances,
    interleaved,
    load_average,
    parser,
    publish,
    ratio_row,
    table,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import eulerstack as es

DECODED_TOKENS = 16


@dataclass(frozen=True)
class Size:
    """Dimensions of a benchmarked model, and the tokens of one step."""

    name: str
    d_model: int
    layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    vocab_size: int
    batch: int
    time: int
    prompt: int


SIZES = (
    Size("small", 128, 4, 4, 2, 384, 1000, batch=2, time=32, prompt=32),
    Size("mid", 640, 12, 10, 5, 1728, 16000, batch=2, time=128, prompt=128),
)


def ours(size: Size, dtype: str) -> nn.Module:
    """Our model, through the public API."""
    spec = {
        "schema_version": 1,
        "model": {
            "name": f"llama-{size.name}",
            "d_model": size.d_model,
            "vocab_size": size.vocab_size,
            "max_seq_len": 2048,
            "n_heads": size.n_heads,
            "n_kv_heads": size.n_kv_heads,
            "d_ff": size.d_ff,
            "dtype": dtype,
        },
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned", "positional": "rope"},
        "layer_templates": {
            "decoder": {"mixer": {"type": "attention", "attention": {}}, "ffn": {"type": "gated_mlp"}},
        },
        "layer_schedule": [{"template": "decoder", "repeat": size.layers}],
        "head": {"type": "causal_lm", "tie_weights": False},
    }
    return es.compile_to_hf_model(es.normalize_to_ir(spec), seed=0)


def theirs(size: Size, dtype: str, model: nn.Module) -> nn.Module:
    """transformers' Llama with the weights of `model`."""
    config = transformers.LlamaConfig(
        hidden_size=size.d_model,
        num_hidden_layers=size.layers,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.n_kv_heads,
        intermediate_size=size.d_ff,
        vocab_size=size.vocab_size,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        dtype=dtype,
    )
    llama = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    names = {
        "mixer": "self_attn",
        "ffn": "mlp",
        "mixer_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    state = {
        ".".join(names.get(part, part) for part in name.split(".")): tensor
        for name, tensor in model.state_dict().items()
    }
    llama.load_state_dict(state, strict=True)
    return llama


def check_equal(model: nn.Module, llama: nn.Module, size: Size) -> float:
    """The largest difference of logits; the comparison means nothing unless both compute one function."""
    ids = torch.randint(0, size.vocab_size, (2, 17))
    with torch.no_grad():
        difference = (model(ids).logits.float() - llama(ids).logits.float()).abs().max().item()
    limit = 1e-4 if next(model.parameters()).dtype == torch.float32 else 0.1
    if difference > limit:
        raise SystemExit(f"the models differ by {difference}: nothing to compare")
    return difference


def training_step(model: nn.Module, size: Size) -> Callable[[], Timing]:
    """Forward with labels, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, size.vocab_size, (size.batch, size.time), generator=torch.Generator().manual_seed(0))

    def run() -> Timing:
        model.train()
        with Stopwatch() as watch:
            optimizer.zero_grad(set_to_none=True)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        return watch.timing

    return run


def decode_step(model: nn.Module, size: Size) -> Callable[[], Timing]:
    """One token at a time after a cached prompt; what it reports is per token."""
    ids = torch.randint(0, size.vocab_size, (1, size.prompt), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def run() -> Timing:
        model.eval()
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        token = ids[:, -1:]
        with Stopwatch() as watch:
            for _ in range(DECODED_TOKENS):
                logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits
                token = logits[:, -1].argmax(-1, keepdim=True)
        return watch.timing / DECODED_TOKENS

    return run


def generate(model: nn.Module, size: Size) -> Callable[[], Timing]:
    """`generate` from a prompt, greedy; what it reports is per token."""
    ids = torch.randint(0, size.vocab_size, (1, size.prompt), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": DECODED_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def run() -> Timing:
        model.eval()
        with Stopwatch() as watch:
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return watch.timing / DECODED_TOKENS

    return run


class OperationCount(TorchDispatchMode):
    """Counts the ATen operations under it: a measure that no other process disturbs."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def operations(model: nn.Module, size: Size) -> tuple[int, int]:
    """ATen operations of one decode step, and of one forward and backward pass."""
    ids = torch.randint(0, size.vocab_size, (1, size.prompt), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cache = model.eval()(input_ids=ids, use_cache=True).past_key_values
        with OperationCount() as decoding:
            model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
    with OperationCount() as training:
        model.train()(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad(set_to_none=True)
    return decoding.operations, training.operations


def main() -> None:
    """Measures and prints."""
    command_line = parser(__doc__ or "", repetitions=15)
    command_line.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    command_line.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="default float32")
    arguments = command_line.parse_args()
    torch.set_num_threads(arguments.threads)
    load = load_average()
    rows: list[list[str]] = []
    counts: list[list[str]] = []
    chosen = SIZES[:1] if arguments.quick else SIZES
    for size in chosen:
        torch.manual_seed(0)
        model = ours(size, arguments.dtype)
        llama, again = (theirs(size, arguments.dtype, model) for _ in range(2))
        difference = check_equal(model, llama, size)
        params = sum(parameter.numel() for parameter in model.parameters())
        label = f"{size.name}, {params / 1e6:.1f}M"
        for what, case in (("decode step", decode_step), ("generate", generate), ("training step", training_step)):
            cases = {"ours": case(model, size), "theirs": case(llama, size), "again": case(again, size)}
            timings = interleaved(cases, arguments.repetitions)
            rows.append(ratio_row(f"{label}: {what}", timings["ours"], timings["theirs"]))
            rows.append(ratio_row(f"{label}: {what}, theirs against itself", timings["again"], timings["theirs"]))
        for what, count, other in zip(
            ("decode step", "forward and backward"), operations(model, size), operations(llama, size), strict=True
        ):
            counts.append([f"{label}: {what}", str(count), str(other), f"{count / other:.3f}"])
        print(f"{label}: logits differ by at most {difference:.1e}", flush=True)
    sizes = "; ".join(
        f"{size.name}: d_model {size.d_model}, {size.layers} layers, {size.n_heads}/{size.n_kv_heads} heads, d_ff "
        f"{size.d_ff}, vocabulary {size.vocab_size}, training {size.batch} × {size.time} tokens, decoding after "
        f"{size.prompt}"
        for size in chosen
    )
    header = ["step", "ours, ms", "Llama's, ms", *RATIO_COLUMNS]
    page = "\n\n".join(
        [
            "# A step of a Llama, against transformers' own class",
            circumstances(["torch", "transformers"], load),
            f"One process, torch threads: {arguments.threads}, {arguments.dtype}, attention "
            f"{model.config._attn_implementation}, {arguments.repetitions} interleaved repetitions after one that is "
            f"thrown away. {sizes}. Decoding is timed a token, over {DECODED_TOKENS} tokens. Goal: at most 1.0 "
            "within noise.",
            table(header, rows),
            table(["ATen operations", "ours", "Llama's", "ratio"], counts),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
