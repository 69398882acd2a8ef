"""`eulerstack plugins list` as a whole process, with thirty plugins of third parties installed and with none.

Each plugin has a mixer, a preset folder and a realism rule, in a package of its own. The goal is a difference below
100 ms. The last column says whether torch or transformers got imported.

    python benchmarks/plugins.py [--repetitions 15] [--output benchmarks/results/plugins.md]
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import (
    Timing,
    circumstances,
    interleaved,
    load_average,
    median_interval,
    parser,
    publish,
    table,
)
from validate_startup import COMMAND, heavy_imports, process

PLUGINS = 30
GOAL_MS = 100
MODULE = '''"""A plugin of a third party."""

from eulerstack.plugins import CacheLayer, Cost, PresetFolder, Primitive, Rule, hookimpl

SCHEMA = {{
    "type": "object",
    "properties": {{
        "rank": {{"type": "integer", "minimum": 1, "default": 8, "description": "Width of the state."}},
        "decay": {{"type": "number", "default": 0.5, "description": "What is kept of it."}},
    }},
}}


@hookimpl
def eulerstack_mixers():
    return [
        Primitive(
            "vendor.made_{number}.mixer", "mixer", "a mixer", "made_{number}.modules:Mixer", schema=SCHEMA,
            cost=lambda dims, params, element_bytes: Cost(params=dims.d_model),
            cache=lambda params: CacheLayer("eulerstack_state"),
        )
    ]


@hookimpl
def eulerstack_presets():
    return [PresetFolder(__file__.rpartition("/")[0])]


@hookimpl
def eulerstack_rules():
    return [Rule("made_{number}", "a rule", lambda ir: ())]
'''


def install(site: Path, count: int) -> None:
    """Puts `count` plugin packages into a folder, as installing them would."""
    for number in range(count):
        package, info = site / f"made_{number}", site / f"made_{number}-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text("", encoding="utf-8")
        (package / "plugin.py").write_text(MODULE.format(number=number), encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-{number}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(
            f"[eulerstack]\nmade_{number} = made_{number}.plugin\n", encoding="utf-8"
        )


def row(what: str, timings: list[Timing], none: list[Timing], heavy: str) -> list[str]:
    """Median milliseconds, and how many more than without plugins: on the clock, with an interval, and of processor."""
    more = [1000 * (each.clock - other.clock) for each, other in zip(timings, none, strict=True)]
    cpu = [1000 * (each.cpu - other.cpu) for each, other in zip(timings, none, strict=True)]
    low, high, _ = median_interval(more)
    return [
        what,
        f"{1000 * statistics.median(each.clock for each in timings):.1f}",
        f"{statistics.median(more):.1f}",
        f"{low:.1f}–{high:.1f}",
        f"{statistics.median(cpu):.1f}",
        heavy,
    ]


def main() -> None:
    """Measures and prints."""
    arguments = parser(__doc__ or "", repetitions=15).parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        sites = {count: Path(folder, f"site_{count}") for count in (0, PLUGINS)}
        cases: dict[str, Callable[[], Timing]] = {}
        heavy: dict[str, str] = {}
        commands = {"plugins list": ["plugins", "list"], "validate": ["validate", "--preset", "llm_0p1b_simple"]}
        for count, site in sites.items():
            site.mkdir()
            install(site, count)
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")])),
                # Byte code is cached, as an installation does it, in a place that is thrown away.
                "PYTHONPYCACHEPREFIX": folder,
            }
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            for what, command in commands.items():
                name = f"{what}, {count} plugins"
                cases[name] = process(environment, "-c", COMMAND, *command)
                os.environ["PYTHONPATH"], before = environment["PYTHONPATH"], os.environ.get("PYTHONPATH", "")
                heavy[name] = heavy_imports(*command)
                os.environ["PYTHONPATH"] = before
        timings = interleaved(cases, arguments.repetitions)
    rows = [
        row(f"{what}, {count} plugins", timings[f"{what}, {count} plugins"], timings[f"{what}, 0 plugins"],
            heavy[f"{what}, {count} plugins"])
        for what in commands for count in sites
    ]  # fmt: skip
    header = ["process", "median, ms", "more than with none, ms", "its noise", "more of CPU time, ms", "heavy imports"]
    page = "\n\n".join(
        [
            f"# What {PLUGINS} installed plugins cost",
            circumstances(["pluggy", "jsonschema", "typer"], load),
            f"Whole processes, {arguments.repetitions} interleaved repetitions after one thrown away; the noise is the "
            f"interval that holds the median of the paired differences with 95 %. Goal: below {GOAL_MS} ms. Where the "
            "machine has other work, the processor's time is the figure to read.",
            table(header, rows),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
