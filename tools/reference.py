"""Writes the generated pages of the documentation, or checks that they are up to date.

Usage: `python tools/reference.py` writes; with `--check` it names the pages that would change and exits with 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    from pages import cli, decisions, hooks, includes, language, life, presets, runtime

    reference = ROOT / "docs" / "reference"
    return {
        reference / "language.md": language.page(),
        reference / "hooks.md": hooks.page(),
        reference / "presets.md": presets.page(),
        reference / "runtime.md": runtime.page(),
        reference / "cli.md": cli.page(),
        ROOT / "README.md": runtime.readme(ROOT / "README.md"),
        ROOT / "docs" / "life-of-a-spec.md": life.page(),
        ROOT / "docs" / "images" / "life-of-a-spec.svg": life.picture(),
        ROOT / "docs" / "decisions" / "index.md": decisions.page(ROOT / "docs" / "decisions"),
        ROOT / "docs" / "writing-a-plugin.md": includes.page(ROOT / "docs" / "writing-a-plugin.md", ROOT),
    }


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    from eulerstack.i18n import activate

    activate("en")
    stale = [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8").strip() != text.strip()
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python tools/reference.py")
        return 1 if stale else 0
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.strip() + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}{' (changed)' if path in stale else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
