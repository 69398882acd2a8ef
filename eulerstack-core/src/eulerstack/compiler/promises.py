"""What a compile finds out about third parties' declarations: whether they keep what they say.

This project's own are held to it by tests, for every primitive and every preset.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eulerstack.compiler.compile import used_primitives
from eulerstack.compiler.cost import count_parameters
from eulerstack.compiler.trial import missing_class
from eulerstack.errors import CompatibilityError, CompileError, Diagnostic, msg
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.faults import PLUGIN_ERRORS
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.primitive import Primitive

if TYPE_CHECKING:
    from eulerstack.hf.models import EulerStackForCausalLM


def strangers_of(ir: ModelIR) -> list[Primitive]:
    """The primitives of third parties that a model needs, each once."""
    registry = get_registry()
    return [primitive for primitive in used_primitives(ir) if not registry.is_own(primitive)]


def check_parameters(ir: ModelIR, model: EulerStackForCausalLM) -> None:
    """Raises a CompatibilityError unless `model`, which may be on meta, has the parameters that `ir` is priced at.

    Looked at where a third party's primitive is in use.
    """
    strangers = strangers_of(ir)
    if not strangers:
        return
    tied = set(model.all_tied_weights_keys)
    built = sum(each.numel() for name, each in model.named_parameters() if name not in tied)
    declared = count_parameters(ir)
    if built == declared:
        return
    packages = sorted({" ".join(get_registry().origin(primitive)) for primitive in strangers})
    raise CompatibilityError(
        [
            Diagnostic(
                CompatibilityError.category,
                msg("the model has {built} parameters, not the {declared} of its price: the cost that {names} of "
                    "{packages} declares is wrong", built=f"{built:,}", declared=f"{declared:,}",
                    names=", ".join(primitive.name for primitive in strangers), packages=", ".join(packages)),
                msg("Install another version of {package}, or use another type",
                    package=", ".join(each.partition(" ")[0] for each in packages)),
                "reference/errors.md#plugin-fault",
            )
        ]
    )  # fmt: skip


@contextmanager
def named_if_missing(ir: ModelIR) -> Iterator[None]:
    """Where reading the model's source fails for want of a third party's class, says whose class it is."""
    try:
        yield
    # Looking for a module imports the packages that it lies in, whose code may raise anything.
    except (CompileError, *PLUGIN_ERRORS) as error:
        missing = [fault for each in strangers_of(ir) if (fault := missing_class(each)) is not None]
        if missing:
            raise CompatibilityError(missing) from error
        raise
