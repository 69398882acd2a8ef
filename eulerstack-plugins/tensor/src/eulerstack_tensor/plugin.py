"""The hooks of eulerstack-tensor."""

from __future__ import annotations

from pathlib import Path

from eulerstack.plugins import Catalog, Namespace, Primitive, Rule, hookimpl
from eulerstack_tensor.declarations.mera import MERA
from eulerstack_tensor.declarations.messages import DOMAIN
from eulerstack_tensor.declarations.trains import PRODUCT_STATE, TENSOR_TRAIN
from eulerstack_tensor.declarations.weight_form import WEIGHT_FORM
from eulerstack_tensor.rules import NO_SMALLER


@hookimpl
def eulerstack_linears() -> tuple[Primitive, ...]:
    """Linear layers whose matrices are tensor networks."""
    return (TENSOR_TRAIN, PRODUCT_STATE, MERA)


@hookimpl
def eulerstack_namespaces() -> tuple[Namespace, ...]:
    """The key `vendor.tensor.weight_form`."""
    return (WEIGHT_FORM,)


@hookimpl
def eulerstack_rules() -> tuple[Rule, ...]:
    """The rule `tensor_no_smaller`."""
    return (NO_SMALLER,)


@hookimpl
def eulerstack_messages() -> tuple[Catalog, ...]:
    """This package's messages in the other languages."""
    return (Catalog(DOMAIN, str(Path(__file__).parent / "locale")),)
