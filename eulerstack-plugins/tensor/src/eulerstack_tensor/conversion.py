"""From a dense model directory to one whose linear layers are tensor networks, with the error of each measured.

    report = convert("dense", "small", {"form": "tt", "rank": 32, "match": ["*.ffn.*"]})

Weights are read, decomposed and written one tensor after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eulerstack.compiler.checkpoints import Checkpoint, read_config
from eulerstack.dsl.source import parse_text
from eulerstack.errors import CompileError, Diagnostic, Message
from eulerstack.exported import export_spec
from eulerstack.ir.linears import Replaced, replaced_linears
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.printer import print_ir
from eulerstack.ir.types import FrozenMapping
from eulerstack.plugins.manager import get_registry
from eulerstack_tensor.declarations.messages import SEE, tensor_msg
from eulerstack_tensor.declarations.weight_form import KEY, written_out
from eulerstack_tensor.decompositions import decompose

if TYPE_CHECKING:
    import torch

# What a tokenizer and a generation are made of, which the weights have no part in.
CARRIED = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "generation_config.json", "chat_template*")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "transition_token_id")


@dataclass(frozen=True)
class Converted:
    """One linear layer: parameters of the network and of the matrix, and ‖network − matrix‖ / ‖matrix‖ (Frobenius),
    of the tensors as they are stored."""

    name: str
    params: int
    dense_params: int
    error: float


def convert(
    dense: str | Path, output: str | Path, weight_form: str | Mapping[str, Any], *, force: bool = False
) -> list[Converted]:
    """Writes the model of the directory `dense` to `output`, with the key's value `weight_form` at the top level.

    Biases, all other weights, the tokenizer and the special tokens stay as they are.
    Errors: CompatibilityError for what the key can't say of this model; CompileError for a directory that can't be
    read, that has the key already, or an output that is there without `force`.
    """
    from eulerstack.compiler.initial import build_on_meta
    from eulerstack.compiler.writer import expected_weights, weight_dtypes, write_directory

    source = Path(dense)
    ir = normalize_to_ir(export_spec(source))
    if any(path.endswith(KEY) for path in ir.extensions):
        what = tensor_msg("{directory} has the key {key} already", directory=str(source), key=KEY)
        raise _refused(what, tensor_msg("Convert the dense model that it was made from"))
    extensions = FrozenMapping({**ir.extensions, KEY: written_out(weight_form)})
    # Read as a spec, so that every word is checked and completed.
    spec = parse_text(print_ir(replace(ir, extensions=extensions)), str(source / "spec.yml"))
    changed = normalize_to_ir(spec)
    replaced = {each.linear.name: each for each in replaced_linears(changed)}
    config, _ = read_config(source)
    report: list[Converted] = []
    with Checkpoint(source) as checkpoint:
        dtypes = weight_dtypes(build_on_meta(changed))
        tensors = _tensors(checkpoint, expected_weights(build_on_meta(ir)), replaced, dtypes, report)
        write_directory(
            changed,
            Path(output),
            tensors,
            seed=None,
            force=force,
            extra_files=sorted({file for pattern in CARRIED for file in source.glob(pattern) if file.is_file()}),
            special_tokens={key: config[key] for key in TOKEN_IDS if config.get(key) is not None},
            dtypes=dtypes,
            source=f"{KEY} of a dense model",
        )
    return report


def _tensors(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    replaced: Mapping[str, Replaced],
    dtypes: Mapping[str, str],
    report: list[Converted],
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the new model; adds what was converted to `report`."""
    import torch

    for name in shapes:
        if name not in checkpoint.entries:
            what = tensor_msg("the directory has no weight {name}", name=name)
            raise _refused(what, tensor_msg("Give a directory that eulerstack compile or save_pretrained wrote"))
        tensor = checkpoint.tensor(name)
        module, _, leaf = name.rpartition(".")
        each = replaced.get(module)
        if each is None or leaf != "weight":
            yield name, tensor.to(getattr(torch, dtypes[name]))
            continue
        found = decompose(tensor, each.node.type, each.node.params)
        stored = {f"{module}.{part}": value for part, value in found.items()}
        stored = {full: value.to(getattr(torch, dtypes[full])) for full, value in stored.items()}
        report.append(_measured(each, tensor, {full.rpartition(".")[2]: value for full, value in stored.items()}))
        yield from stored.items()


def _measured(each: Replaced, matrix: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> Converted:
    """How far the network, as it is stored, lies from the matrix."""
    from importlib import import_module

    import torch

    primitive = get_registry().get("linear", each.node.type)
    place, _, name = primitive.module.partition(":")
    network = getattr(import_module(place), name)(None, {**each.node.params, "bias": False}).double()
    with torch.no_grad():
        for part, value in tensors.items():
            network.get_parameter(part).copy_(value)
        exact = matrix.double()
        error = float((network.dense_weight() - exact).norm() / exact.norm().clamp(min=1e-300))
    params = sum(value.numel() for value in tensors.values())
    return Converted(each.linear.name, params, matrix.numel(), error)


def _refused(what: Message, fix: Message) -> CompileError:
    return CompileError([Diagnostic("CompileError", what, fix, f"{SEE}#conversion")])
