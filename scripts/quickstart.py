"""`make quickstart`: a preset becomes a HuggingFace directory, which then generates text without eulerstack.

    python scripts/quickstart.py [--preset NAME] [--output-dir DIRECTORY]

Runs in an environment where eulerstack is installed; the second half runs in a process of its own that can't import it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent


def run(*command: str | Path) -> None:
    """Shows a command, runs it, and ends this program with its status when it fails."""
    words = [str(word) for word in command]
    shown = [Path(words[0]).name, *(word.removeprefix(f"{SCRIPTS.parent}/") for word in words[1:])]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    finished = subprocess.run(words, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)


def main() -> None:
    """Compiles, then loads and generates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="llm_0p1b_simple")
    parser.add_argument("--output-dir", default="build/quickstart")
    options = parser.parse_args()

    command = shutil.which("eulerstack", path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit("eulerstack is not installed in this environment; `make quickstart` installs it")
    started = time.monotonic()
    run(command, "--lang", "en", "explain", "--preset", options.preset)
    run(
        command, "--lang", "en", "compile",
        "--preset", options.preset, "--output-dir", options.output_dir, "--force",
    )  # fmt: skip
    run(sys.executable, "-I", SCRIPTS / "generate_without_eulerstack.py", options.output_dir)
    print(f"\nDone in {time.monotonic() - started:.0f} s. The weights are random, so the words are too.")
    print(f"Next: train {options.output_dir} with whatever trains HuggingFace models, or change the spec:")
    name = "eulerstack" if shutil.which("eulerstack") == command else os.path.relpath(command)
    print(f"  {name} presets show {options.preset} --yaml > my_model.yml")


if __name__ == "__main__":
    main()
