"""Writes the figures of the tutorials, or checks that they are what their scripts draw.

Usage: `python tools/draw.py` writes docs/tutorials/figures/NAME.svg for every tools/figures/NAME.py that has a function
`svg`; with `--check` it names those that would change and exits with 1.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "tutorials" / "figures"


def figures() -> dict[Path, str]:
    """Every figure's file and text."""
    scripts = sorted(path.stem for path in (ROOT / "tools" / "figures").glob("*.py"))
    modules = {name: importlib.import_module(f"tools.figures.{name}") for name in scripts}
    return {FIGURES / f"{name}.svg": module.svg() for name, module in modules.items() if hasattr(module, "svg")}


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    stale = [path for path, text in figures().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.write_text(figures()[path], encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
