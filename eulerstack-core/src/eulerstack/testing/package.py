"""Claims about a whole package: it works, nothing of it goes unexamined, and saying what it is takes no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.sources import DISABLE_VARIABLE, installed_sources
from eulerstack.testing.claims import Package

WITHOUT_TORCH = """
import json, sys
from eulerstack.compiler.cost import model_cost
from eulerstack.ir import normalize_to_ir
for spec in json.load(sys.stdin):
    model_cost(normalize_to_ir(spec))
heavy = sorted({"torch", "transformers"} & sys.modules.keys())
sys.exit(f"imports {', '.join(heavy)}" if heavy else 0)
"""


def installed(package: Package) -> None:
    """The plugin works, and brings every primitive that has an example."""
    registry = get_registry()
    records = [record for record in registry.records() if record.package == package.name]
    assert records, f"no plugin of a distribution called {package.name} is installed"
    for record in records:
        why = "" if record.error is None else record.error.render(str)
        assert record.state == "ok", f"the plugin {record.name} is {record.state}: {why}\n{record.traceback}"
    for example in package.examples:
        origin, _ = registry.origin(example.primitive)
        assert origin == package.name, f"{example.name} comes from {origin}"


def complete(package: Package) -> None:
    """Every primitive of the package has an example."""
    registry = get_registry()
    own = [each for each in registry.primitives() if registry.origin(each)[0] == package.name]
    examined = {(example.kind, example.name) for example in package.examples}
    missing = [f"{each.kind} {each.name}" for each in own if (each.kind, each.name) not in examined]
    assert not missing, f"without an example: {', '.join(missing)}"


def torch_free(package: Package) -> None:
    """It is listed, validated and priced without importing torch."""
    specs = json.dumps([example.spec() for example in package.examples])
    # As this process finds packages, however they came to be found; what strangers import is not this package's fault.
    strangers = {source.package for source in installed_sources() if not source.own and source.package != package.name}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        DISABLE_VARIABLE: ",".join(sorted(strangers)),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=specs, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"validating and pricing its specs {done.stderr.strip()}"
