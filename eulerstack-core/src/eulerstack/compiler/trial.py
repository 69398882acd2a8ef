"""A small model around one primitive, with its words at their defaults: where its price is shown and its code is tried.

Torch-free: nothing is built, and the class is looked for in its file without importing it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eulerstack.compiler.compile import compile_ir
from eulerstack.compiler.cost import model_cost
from eulerstack.errors import CompatibilityError, Diagnostic, EulerStackError, msg
from eulerstack.ir.dims import dims_of
from eulerstack.ir.normalizer import normalize_to_ir
from eulerstack.ir.types import IntegratorIR, ModelIR, ParallelIR
from eulerstack.plugins.asking import ask
from eulerstack.plugins.faults import PLUGIN_ERRORS, reason_of
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import Cost, Dims, Kind, Params, Primitive

SIZES = {"d_model": 1024, "n_heads": 16, "d_ff": 4096, "vocab_size": 32000, "max_seq_len": 4096}
# What stands where a model needs more than the primitive on trial; the defaults of the language stand elsewhere.
OTHERS: dict[str, str] = {"mixer": "attention", "ffn": "gated_mlp"}
Spec = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What came of it: the price at `SIZES` where the declaration gives one, and what is wrong."""

    cost: Cost | None = None
    dims: Dims | None = None
    problems: tuple[Diagnostic, ...] = ()


def tried(primitive: Primitive) -> Trial:
    """Validates, prices and describes a model with `primitive`, and looks for its class.

    A primitive of the kind "linear" stands in no spec of its own, so that only its class is looked for.
    """
    missing = missing_class(primitive)
    problems = () if missing is None else (missing,)
    if primitive.kind == "linear":
        return Trial(problems=problems)
    try:
        ir = normalize_to_ir(trial_spec(primitive))
        model_cost(ir)
        compile_ir(ir)
        params, dims = _params_of(ir, primitive.kind), dims_of(ir)
        cost = ask(get_registry(), primitive, Cost, primitive.cost, dims, params, 2)
    except EulerStackError as error:
        return Trial(problems=(*error.diagnostics, *problems))
    return Trial(cost, dims, problems)


def trial_spec(primitive: Primitive) -> Spec:
    """A spec of one layer, or of one stage, that names the primitive; of an integrator two steps.

    A merge joins the streams fast and slow; examples of words that name a stream name one of these.
    """
    node = {"type": primitive.name, **_needed(primitive.inline, primitive.inline)}
    if primitive.schema is not None:
        properties = primitive.schema.get("properties", {})
        node[primitive.block_name] = _needed(properties, primitive.schema.get("required", ())) | _held(primitive)
    template: Spec = {kind: {"type": name} for kind, name in OTHERS.items()}
    spec: Spec = {
        "schema_version": 1,
        "model": {"name": "trial", **SIZES},
        "tokenizer_contract": {"type": "hf"},
        "embedding": {"type": "learned"},
        "layer_templates": {"decoder": template},
        "layer_schedule": [{"template": "decoder"}],
        "head": {"type": "causal_lm"},
    }
    if primitive.kind == "position":
        spec["embedding"] |= {key: value for key, value in node.items() if key != "type"}
        spec["embedding"]["positional"] = primitive.name
    elif primitive.kind == "head":
        spec["head"] = node
    elif primitive.kind == "integrator":
        spec["layer_schedule"] = [{"integrator": {"steps": 2, "body": "decoder", **node}}]
    elif primitive.kind == "merge":
        streams = [{"stream": name, "body": [{"template": "decoder"}]} for name in ("fast", "slow")]
        spec["layer_schedule"] = [{"parallel": streams, "merge": node}]
    else:
        template[primitive.kind] = node
    return spec


def _needed(properties: Mapping[str, Any], words: Any) -> Spec:
    """A value for each of `words` that must be given: an example of its schema, or the first that it allows."""
    values: Spec = {}
    for word in words:
        schema = properties.get(word, {})
        if "default" in schema:
            continue
        choices = schema.get("examples") or schema.get("enum") or ()
        if choices:
            values[word] = choices[0]
    return values


def _held(primitive: Primitive) -> Spec:
    """The primitives that a holder holds: as few as it must, all alike."""
    if primitive.holds is None:
        return {}
    node = {"type": OTHERS[primitive.kind]}
    return {primitive.holds.word: {f"part_{number}": node for number in range(primitive.holds.least)}}


def _params_of(ir: ModelIR, kind: Kind) -> Params:
    """The complete parameters of the one primitive of its kind in a trial's model."""
    if kind == "position":
        return ir.position.params
    if kind == "head":
        return ir.head.params
    stage = ir.stages[0]
    if kind == "integrator":
        assert isinstance(stage, IntegratorIR)
        return stage.integrator.params
    if kind == "merge":
        assert isinstance(stage, ParallelIR)
        return stage.merge_params
    params: Params = getattr(ir.layers[0], kind).params
    return params


def missing_class(primitive: Primitive) -> Diagnostic | None:
    """What is wrong with where a declaration says that its class is: the file is read, not run."""
    if not primitive.module:
        return None
    module, _, name = primitive.module.partition(":")
    try:
        found = find_spec(module)
        if found is None or not found.origin or not found.origin.endswith(".py"):
            why = None if found is not None else f"ModuleNotFoundError: {module}"
        else:
            tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
            defined = {each.name for each in ast.walk(tree) if isinstance(each, ast.ClassDef | ast.FunctionDef)}
            why = None if name in defined else f"{found.origin}: {name}?"
    # Looking for a module imports the packages that it lies in, which are the plugin's.
    except PLUGIN_ERRORS as error:
        get_registry().keep_traceback(primitive, error)
        why = reason_of(error)
    if why is None:
        return None
    package, _ = get_registry().origin(primitive)
    return Diagnostic(
        CompatibilityError.category,
        msg("the class of {name}, {path}, is not there: {error}", name=primitive.name, path=primitive.module,
            error=why),
        msg("Install another version of {package}, or use another type", package=package),
        "reference/errors.md#plugin-fault",
    )  # fmt: skip
