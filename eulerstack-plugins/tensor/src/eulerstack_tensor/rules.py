"""The realism rule `tensor_no_smaller`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from eulerstack.errors import Finding
from eulerstack.ir.linears import replaced_linears
from eulerstack.ir.types import ModelIR
from eulerstack.plugins import Rule
from eulerstack.plugins.manager import get_registry
from eulerstack_tensor.declarations.messages import tensor_msg
from eulerstack_tensor.declarations.weight_form import KEY


def no_smaller(ir: ModelIR) -> Iterator[Finding]:
    """A finding for every key whose networks have as many parameters as the matrices, or more."""
    sums: dict[str, tuple[int, int]] = {}
    for each in replaced_linears(ir):
        if each.path.endswith(KEY):
            own, dense = sums.get(each.path, (0, 0))
            # How many bytes an element has says nothing about parameters.
            sums[each.path] = own + each.cost(get_registry(), 1).params, dense + each.dense_params
    for path, (own, dense) in sums.items():
        if own >= dense:
            what = tensor_msg(
                "the networks have {own} parameters, the matrices that they replace {dense}; a smaller rank or more "
                "cores make them smaller",
                own=f"{own:,}",
                dense=f"{dense:,}",
            )
            yield Finding("tensor_no_smaller", what, path, ir.locations.get(path))


NO_SMALLER = Rule("tensor_no_smaller", "networks of vendor.tensor.weight_form are smaller than matrices", no_smaller)
