"""Code blocks that repeat a file: `<!-- file: PATH -->` and the block after it are kept equal to PATH."""

from __future__ import annotations

import re
from pathlib import Path

LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}
BLOCK = re.compile(r"(<!-- file: (?P<path>\S+) -->\n)```\w*\n(?:.*?\n)??```(?=\n|$)", re.DOTALL)


def page(path: Path, root: Path) -> str:
    """The text of the page at `path` with every included file as it is now."""

    def block(match: re.Match[str]) -> str:
        file = root / match["path"]
        content = file.read_text(encoding="utf-8").rstrip("\n")
        return f"{match[1]}```{LANGUAGES[file.suffix]}\n{content}\n```"

    return BLOCK.sub(block, path.read_text(encoding="utf-8"))
