"""One primitive's module at work inside its model: what it was given, what it made of it, with gradients to both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from eulerstack.hf.primitives import primitive_class
from eulerstack.ir import normalize_to_ir
from eulerstack.ir.dims import dims_of
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.types import PrimitiveIR, thaw
from eulerstack.plugins import Dims
from eulerstack.testing.claims import DoesNotApply
from eulerstack.testing.example import Example
from eulerstack.testing.models import built, tokens

TIME = 9


@dataclass
class Observed:
    """The first call of a primitive's module in a pass of its model.

    inputs      what it was given, a leaf with a gradient: (batch, time, …), of a merge (batch, streams, time, d_model)
    output      what it returned, (batch, time, …)
    parameters  its own, by their names in it
    instances   how many modules of its class the model has
    others      what the naive implementation may ask for beside these, by name
    """

    module: torch.nn.Module
    params: dict[str, Any]
    dims: Dims
    instances: int
    parameters: dict[str, torch.nn.Parameter]
    inputs: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    output: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    others: dict[str, Any] = field(default_factory=dict)


def node_of(example: Example, ir: Any) -> PrimitiveIR:
    """The example's primitive in its IR."""
    if example.kind == "linear":
        return next(each.node for each in replaced_linears(ir) if each.node.type == example.name)
    holder = ir.layers[0]
    if example.kind in ("position", "head"):
        holder = ir
    if example.kind in ("integrator", "merge"):
        holder = ir.stages[1]
    node: PrimitiveIR = getattr(holder, example.kind)
    return node


def observed(example: Example, dtype: torch.dtype, batch: int = 1) -> Observed:
    """Watches the module in a pass of the example's model over `batch` sequences, with lively weights of `dtype`."""
    primitive = example.primitive
    if primitive.absent or (primitive.kind == "position" and primitive.place == "mixers"):
        raise DoesNotApply("it computes nothing by itself")
    ir: Any = normalize_to_ir(example.spec())
    node = node_of(example, ir)
    params = thaw(ir.stages[1].merge_params if example.kind == "merge" else node.params)
    model = built(example.spec()).to(dtype)
    kind = primitive_class(example.kind, {"type": example.name, "params": params})
    modules = [module for module in model.modules() if isinstance(module, kind)]
    assert modules, f"the model holds no {kind.__name__}"
    module = modules[0]
    seen = Observed(module, params, dims_of(ir), len(modules), dict(module.named_parameters()))
    if example.kind == "position" and primitive.place == "scores":
        places = torch.arange(TIME)
        seen.inputs, seen.output = places[None], module.attention_bias(places, places)[None]
        seen.others = {"keys": places.tolist()}
        return seen
    handles: list[Any] = []

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = READERS.get(example.kind, _first)(seen, args, kwargs, model, ir)
        handles.pop(0).remove()
        return own, kwargs

    def after(module: torch.nn.Module, args: Any, output: Any) -> None:
        seen.output = output[0] if isinstance(output, tuple) else output
        handles.pop(0).remove()

    handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    handles.append(module.register_forward_hook(after))
    model(tokens(batch=batch, time=TIME), use_cache=False)
    assert not handles, f"{kind.__name__} takes no part in a forward"
    return seen


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, as something that a gradient is asked for; what counts places is left as it is."""
    return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor


def _first(seen: Observed, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any, ir: Any) -> tuple[Any, ...]:
    """Mixers, feed-forward blocks, norms, memories, positions of embeddings: one tensor, given first or by name."""
    tables = kwargs.get("position_embeddings")
    if isinstance(tables, tuple):
        seen.others["position_embeddings"] = tuple(table[0] for table in tables)
    if not args:
        kwargs["hidden_states"] = seen.inputs = _leaf(kwargs["hidden_states"])
        return ()
    seen.inputs = _leaf(args[0])
    return (seen.inputs, *args[1:])


def _head(seen: Observed, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any, ir: Any) -> tuple[Any, ...]:
    """A head, whose weights are the model's `lm_head` too where it projects with that."""
    if model.lm_head is not None:
        seen.parameters |= {f"lm_head.{name}": each for name, each in model.lm_head.named_parameters()}
    return _first(seen, args, kwargs, model, ir)


def _integrator(seen: Observed, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any, ir: Any) -> tuple[Any, ...]:
    """An integrator, whose `layers` map a sequence to a sequence."""
    evaluate = args[1]

    def layer(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda states: evaluate(states[None], index, 0)[0]

    seen.others = {"layers": [layer(index) for index in range(ir.stages[1].copies)]}
    return _first(seen, args, kwargs, model, ir)


def _residual(seen: Observed, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any, ir: Any) -> tuple[Any, ...]:
    """A residual, whose branches and norms map a sequence to a sequence."""
    layer, hidden_states, mixer = args
    seen.inputs = _leaf(hidden_states)
    norms = {name: each for name, each in layer.named_children() if name.endswith("norm")}
    factor = seen.params.get("scaling", 1.0) * ir.model["residual_multiplier"]
    seen.others = {
        "mixer": lambda states: mixer(states[None])[0],
        "ffn": None if layer.ffn is None else lambda states: layer.ffn(states[None])[0],
        "norms": norms,
        "position": ir.layers[0].norm.position,
        "scaling": factor,
    }
    return layer, seen.inputs, mixer


def _merge(seen: Observed, args: tuple[Any, ...], kwargs: dict[str, Any], model: Any, ir: Any) -> tuple[Any, ...]:
    """A merge, which is given a list with one tensor a stream."""
    seen.inputs = _leaf(torch.stack(args[0], dim=1))
    return list(seen.inputs.unbind(1)), *args[1:]


READERS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "head": _head,
    "integrator": _integrator,
    "residual": _residual,
    "merge": _merge,
}
