"""The key `vendor.tensor.weight_form`: which linear layers are tensor networks, and of what size. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from eulerstack.errors import CompatibilityError, Diagnostic, Message
from eulerstack.plugins import Linear, Namespace, Replacement
from eulerstack_tensor.declarations.mera import MERA
from eulerstack_tensor.declarations.messages import SEE, tensor_msg
from eulerstack_tensor.declarations.shapes import levels, most_parts, split, usual_cores, usual_sites
from eulerstack_tensor.declarations.trains import PRODUCT_STATE, TENSOR_TRAIN, operator_bonds, state_bonds

KEY = "vendor.tensor.weight_form"
FORMS = ("tt", "mps", "mera", "dense")
ROLES = ("hidden", "query", "output")
# What no layer computes: tables of which one row a token is read.
TABLES = ("lm_head", "model.embed_tokens")

SCHEMA = {
    "type": ["object", "string"],
    "description": "Linear layers whose matrices are tensor networks: a form, or a mapping.",
    "if": {"type": "string"},
    "then": {"enum": list(FORMS)},
    "required": ["form"],
    "properties": {
        "form": {
            "type": "string",
            "enum": list(FORMS),
            "description": "tt: tensor train, a leg of either side in each core; mps: matrix product state, the "
            "outputs' legs before the inputs'; mera: isometries and disentanglers on several scales; dense: matrices "
            "as ever.",
        },
        "rank": {
            "type": "integer",
            "minimum": 1,
            "maximum": 65536,
            "default": 16,
            "description": "The largest bond between two tensors; one that can't be used is smaller.",
        },
        "cores": {
            "type": ["integer", "null"],
            "minimum": 2,
            "maximum": 16,
            "default": None,
            "description": "Factors that either side of a matrix is split into; of a mera a power of two from 4. null: "
            "3, of a mera the most up to 16, and fewer where a width has fewer factors.",
        },
        "match": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "default": ["*"],
            "description": "Patterns of names of linear layers, as *.q_proj; each must fit one.",
        },
        "roles": {
            "type": "array",
            "items": {"type": "string", "enum": list(ROLES)},
            "minItems": 1,
            "default": list(ROLES),
            "description": "Which linear layers among them: those that make queries, those that write into the "
            "residual stream, and all others.",
        },
    },
    "additionalProperties": False,
}


def written_out(value: Any) -> Any:
    """The long form: a word alone is the form."""
    return {"form": value} if isinstance(value, str) else value


def replaces(value: Mapping[str, Any], linears: Sequence[Linear]) -> dict[str, Replacement]:
    """The linear layers that patterns and roles choose, each as a network of the form.

    Errors: CompatibilityError for a pattern that fits none, and for widths that can't be split.
    """
    chosen = []
    for place, pattern in enumerate(value["match"]):
        fitting = [linear for linear in linears if fnmatchcase(linear.name, pattern)]
        if not fitting:
            raise _no_match(pattern, f"{KEY}.match[{place}]")
        chosen += [linear for linear in fitting if linear not in chosen]
    chosen = [linear for linear in chosen if linear.role in value["roles"]]
    if not chosen:
        raise _refused(
            tensor_msg("no linear layer that the patterns fit has one of these roles"),
            tensor_msg("Type roles: [{roles}]", roles=", ".join(ROLES)),
            f"{KEY}.roles",
        )
    if value["form"] == "dense":
        return {}
    make = MAKERS[value["form"]]
    return {linear.name: make(linear, value["rank"], value["cores"]) for linear in chosen}


def _no_match(pattern: str, path: str) -> CompatibilityError:
    if any(fnmatchcase(name, pattern) for name in TABLES):
        what = tensor_msg(
            "{pattern} means a table, of which a token reads one row or all rows at once", pattern=pattern
        )
        return _refused(what, tensor_msg("Type a pattern of linear layers inside of layers, such as *.ffn.*"), path)
    what = tensor_msg("{pattern} fits no linear layer that can have another form", pattern=pattern)
    fix = tensor_msg("Type a pattern such as *.ffn.*; attention, retnet, mlp and gated_mlp have such layers")
    return _refused(what, fix, path)


def _refused(what: Message, fix: Message, path: str) -> CompatibilityError:
    return CompatibilityError([Diagnostic("CompatibilityError", what, fix, SEE, path)])


def _split(linear: Linear, cores: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The legs of both sides, the outputs' rising and the inputs' falling, so that pairs are of one size."""
    most = most_parts(linear.out_features, linear.in_features)
    if cores > most or cores < 2:
        what = tensor_msg(
            "{name} is {out} by {into}, which can't both be split into {cores} factors",
            name=linear.name,
            out=linear.out_features,
            into=linear.in_features,
            cores=max(cores, 2),
        )
        fix = (
            tensor_msg("Type cores: {cores}, or leave it out by match", cores=most)
            if most > 1
            else tensor_msg("Leave it out by match, or choose a width that is no prime number")
        )
        raise _refused(what, fix, "")
    return split(linear.out_features, cores), split(linear.in_features, cores)[::-1]


def tensor_train_of(linear: Linear, rank: int, cores: int | None) -> Replacement:
    """A tensor train of one linear layer."""
    outs, ins = _split(linear, cores or usual_cores(linear.out_features, linear.in_features))
    return _chain(TENSOR_TRAIN.name, outs, ins, operator_bonds(outs, ins, rank))


def product_state_of(linear: Linear, rank: int, cores: int | None) -> Replacement:
    """A matrix product state of one linear layer."""
    outs, ins = _split(linear, cores or usual_cores(linear.out_features, linear.in_features))
    return _chain(PRODUCT_STATE.name, outs, ins, state_bonds(outs, ins, rank))


def _chain(name: str, outs: tuple[int, ...], ins: tuple[int, ...], ranks: tuple[int, ...]) -> Replacement:
    return Replacement(name, {"out_factors": outs, "in_factors": ins, "bonds": ranks})


def mera_of(linear: Linear, rank: int, cores: int | None) -> Replacement:
    """A MERA of one linear layer."""
    sites = usual_sites(linear.out_features, linear.in_features) if cores is None else cores
    if sites < 4 or sites & (sites - 1):
        what = tensor_msg(
            "a mera joins sites in pairs, so it needs a power of two of them from 4, not {sites}: {name} is {out} by "
            "{into}",
            sites=sites, name=linear.name, out=linear.out_features, into=linear.in_features,
        )  # fmt: skip
        fix = tensor_msg("Type cores: 4, choose widths with four factors, or leave it out by match")
        raise _refused(what, fix, "")
    outs, ins = _split(linear, sites)
    pairs = [out * into for out, into in zip(outs, ins, strict=True)]
    return Replacement(MERA.name, {"out_factors": outs, "in_factors": ins, "levels": levels(pairs, rank)})


MAKERS: dict[str, Callable[[Linear, int, int | None], Replacement]] = {
    "tt": tensor_train_of,
    "mps": product_state_of,
    "mera": mera_of,
}
WEIGHT_FORM = Namespace(
    key=KEY,
    schema=SCHEMA,
    summary="linear layers whose matrices are tensor networks",
    resolve=written_out,
    replaces=replaces,
)
