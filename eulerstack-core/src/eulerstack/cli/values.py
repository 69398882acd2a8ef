"""Values of options without pydantic.

Newer versions of typer import pydantic to convert each value, which takes a tenth of a second: more than everything
else that `validate` does. Ours are strings, flags and whole numbers, converted here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from eulerstack.cli.failures import whole_number_fault


def convert_plainly(parameter: Any) -> Any:
    """Makes a parameter convert its values here, and returns it.

    Parameters of typer's versions that use click's own conversions are left alone.
    """
    if hasattr(parameter, "get_runtime_param"):
        parameter.process_value = partial(_converted, parameter)
    return parameter


def _converted(parameter: Any, context: Any, value: Any) -> Any:
    if parameter.callback is not None:
        return parameter.callback(context, parameter, value)
    if parameter.min is None or not isinstance(value, str):
        return value
    try:
        number = int(value)
    except ValueError:
        raise whole_number_fault(parameter, context) from None
    if number < parameter.min or (parameter.max is not None and number > parameter.max):
        raise whole_number_fault(parameter, context)
    return number
