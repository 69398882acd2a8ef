"""`eulerstack validate` as a whole process, against a process that only imports what it needs.

The floor imports yaml, jsonschema, typer and pluggy and reads the entry points; the goal is a ratio below 2. Each line
also says whether torch or transformers got imported.

    python benchmarks/validate_startup.py [--repetitions 15] [--output benchmarks/results/validate_startup.md]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import (
    RATIO_COLUMNS,
    Stopwatch,
    Timing,
    circumstances,
    interleaved,
    load_average,
    parser,
    publish,
    ratio_row,
    table,
)

FLOOR = (
    "import yaml, jsonschema, typer, pluggy; "
    "from importlib.metadata import entry_points; "
    "list(entry_points(group='eulerstack'))"
)
COMMAND = "import sys; from eulerstack.cli import main; sys.exit(main(sys.argv[1:]))"
IMPORTED = (
    "import sys\n"
    "from eulerstack.cli import main\n"
    "try: code = main(sys.argv[1:])\n"
    "except SystemExit as exit: code = exit.code\n"
    "sys.stderr.write(','.join(name for name in ('torch', 'transformers') if name in sys.modules) or 'none')\n"
    "sys.exit(code)\n"
)
SHORT_SPEC = """\
schema_version: 1
model: { name: my-llm, d_model: 2048, vocab_size: 32000, max_seq_len: 4096, n_heads: 16 }
tokenizer_contract: { type: hf, pretrained: gpt2 }
embedding: { type: learned, positional: rope }
layer_templates:
  decoder:
    mixer: { type: attention, attention: {} }
    ffn: { type: gated_mlp, activation: swiglu }
layer_schedule:
  - { template: decoder, repeat: 24 }
head: { type: causal_lm }
"""


def process(environment: dict[str, str], *arguments: str) -> Callable[[], Timing]:
    """A case that runs Python with `arguments` until it has ended."""

    def run() -> Timing:
        with Stopwatch(resource.RUSAGE_CHILDREN) as watch:
            subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
        return watch.timing

    return run


def heavy_imports(*arguments: str) -> str:
    """Which of torch and transformers the command imports, in words."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return done.stderr.decode().splitlines()[-1]


def main() -> None:
    """Measures and prints."""
    arguments = parser(__doc__ or "", repetitions=15).parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder, "short.yml")
        short.write_text(SHORT_SPEC, encoding="utf-8")
        commands = {
            "validate, a spec of 11 lines": ["validate", "--preset", str(short)],
            "validate llm_0p1b_simple": ["validate", "--preset", "llm_0p1b_simple"],
            "validate --report llm_16b_mistral": ["validate", "--preset", "llm_16b_mistral", "--report"],
            "--help": ["--help"],
        }
        heavy = {what: heavy_imports(*command) for what, command in commands.items()}
        # Byte code is cached for both sides, as an installation does it, in a place that is thrown away.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        cases = {"floor": process(environment, "-c", FLOOR), "python -c pass": process(environment, "-c", "pass")}
        cases |= {what: process(environment, "-c", COMMAND, *command) for what, command in commands.items()}
        timings = interleaved(cases, arguments.repetitions)
    rows = [
        [*ratio_row(what, timings[what], timings["floor"]), heavy.get(what, "none")]
        for what in (*commands, "python -c pass")
    ]
    header = ["process", "median, ms", "floor, ms", *RATIO_COLUMNS, "heavy imports"]
    page = "\n\n".join(
        [
            "# Start-up of `eulerstack validate`",
            circumstances(["pyyaml", "jsonschema", "typer", "pluggy"], load),
            f'Floor: `python -c "{FLOOR}"`. Whole processes, {arguments.repetitions} interleaved repetitions after '
            "one that is thrown away. Goal: a ratio below 2.",
            table(header, rows),
        ]
    )
    publish(page, arguments.output)


if __name__ == "__main__":
    main()
