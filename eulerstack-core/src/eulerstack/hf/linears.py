"""Linear layers that are computed by other means than a matrix, in the places that the architecture names."""

from typing import Any

from torch import nn

from eulerstack.hf.primitives import primitive_class


def replace_linears(stack: Any) -> None:
    """Puts what `linears` of the architecture says in the place of a stack's linear layers.

    Each keeps in `stands_for` the role and the shape, (out, in), of the matrix that it replaces.
    Errors: TypeError where the module that is there is not the linear layer that was declared.
    """
    for node in stack.config.architecture.get("linears", ()):
        params = node["params"]
        shape = (params["out_features"], params["in_features"])
        for name in node["modules"]:
            dense = stack.get_submodule(name)
            is_declared = type(dense) is nn.Linear and tuple(dense.weight.shape) == shape
            if not is_declared or (dense.bias is not None) != params["bias"]:
                raise TypeError(f"{name} is {dense}, not a linear layer {shape[1]} -> {shape[0]} as was declared")
            made = primitive_class("linear", node)(stack.config, params)
            made.stands_for = (params["role"], *shape)
            parent, _, child = name.rpartition(".")
            setattr(stack.get_submodule(parent), child, made)
