"""Writes the figures of the tutorials, or checks that they are what their scripts draw.

Usage: `python tools/draw.py` writes docs/tutorials/figures/NAME.svg, with English words, and figures/ko/NAME.svg, with
Korean ones, for every tools/figures/NAME.py that has a function `svg` and its `KOREAN` words; with `--check` it names
those that would change and exits with 1.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs" / "tutorials" / "figures"


def figures() -> dict[Path, str]:
    """Every figure's file and text, in both languages.

    A figure passes each of its words through a function; a word without a translation is a KeyError.
    """
    scripts = sorted(path.stem for path in (ROOT / "tools" / "figures").glob("*.py"))
    drawn = {}
    for name in scripts:
        module = importlib.import_module(f"tools.figures.{name}")
        if hasattr(module, "svg"):
            drawn[FIGURES / f"{name}.svg"] = module.svg(str)
            drawn[FIGURES / "ko" / f"{name}.svg"] = module.svg(module.KOREAN.__getitem__)
    return drawn


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    made = figures()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
