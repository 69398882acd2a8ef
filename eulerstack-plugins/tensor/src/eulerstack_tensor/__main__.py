"""`python -m eulerstack_tensor DENSE OUTPUT --form tt --rank 32`: a dense model directory with tensor networks.

Prints a line for each linear layer: its name, the parameters of the network and of the matrix, and the relative error.
"""

from __future__ import annotations

import argparse
import json
import sys

from eulerstack.errors import EulerStackError
from eulerstack_tensor.conversion import convert
from eulerstack_tensor.declarations.weight_form import FORMS


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m eulerstack_tensor", description=__doc__.split("\n")[0])
    parser.add_argument("dense", help="a model directory that eulerstack compiled or imported")
    parser.add_argument("output", help="the directory to write")
    parser.add_argument("--form", required=True, choices=[form for form in FORMS if form != "dense"])
    parser.add_argument("--rank", type=int, default=None, help="the largest bond between two tensors")
    parser.add_argument("--cores", type=int, default=None, help="factors that either side of a matrix is split into")
    parser.add_argument(
        "--match", action="append", help="a pattern of linear layers' names; may be given several times"
    )
    parser.add_argument("--force", action="store_true", help="replace a directory that is there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    words = {word: getattr(given, word) for word in ("form", "rank", "cores", "match")}
    try:
        report = convert(
            given.dense,
            given.output,
            {word: value for word, value in words.items() if value is not None},
            force=given.force,
        )
    except EulerStackError as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps([vars(each) for each in report], indent=2))
        return 0
    for each in report:
        print(f"{each.name}  {each.params:,} of {each.dense_params:,}  error {each.error:.3e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
