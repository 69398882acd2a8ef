"""What the comment at the top of a preset says of it: summary, lesson, source, tier and level.

    # Jamba: three Mamba layers to one of attention.
    # Teaches: a hybrid; each template asserts what its mixer keeps.
    # Source: Lieber et al. 2024, Jamba (arXiv:2403.19887).
    # Tier 2 (recent hybrid / moe / long context), level: advanced.

A paragraph may go on over several lines. What a file doesn't say is empty, and its tier None: any spec may be a preset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("beginner", "intermediate", "advanced", "expert", "llm")
TIERS = (1, 2, 3)
_tier = re.compile(r"Tier (\d) \([^)]*\), level: (\w+)\.")
_arxiv = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_touched = re.compile(r"\s*\bOf ([\d.]+[KMBT]) parameters a token touches ([\d.]+[KMBT])\.$")
_year = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class Header:
    """The paragraphs of a preset's header, each in one line.

    summary  what it is, in one sentence
    teaches  what there is to learn from it
    source   the papers that it is after
    tier     1 (validated), 2 (recent) or 3 (experimental)
    level    whom it is for, one of `LEVELS`
    """

    summary: str = ""
    teaches: str = ""
    source: str = ""
    tier: int | None = None
    level: str = ""

    @property
    def lesson(self) -> str:
        """What the header teaches, without the sentence about numbers at its end."""
        return _touched.sub("", self.teaches)

    @property
    def touched(self) -> tuple[str, str] | None:
        """(parameters, those that a token touches) as the header's last sentence says them; None where it doesn't."""
        match = _touched.search(self.teaches)
        return (match[1], match[2]) if match else None

    @property
    def arxiv(self) -> list[str]:
        """The identifiers of the papers on arXiv, in the order in which they are named."""
        return list(dict.fromkeys(_arxiv.findall(self.source)))

    @property
    def years(self) -> list[int]:
        """The years of the papers, rising."""
        return sorted({int(year) for year in _year.findall(_arxiv.sub("", self.source))})

    def names(self, paper: str) -> bool:
        """Whether every word of `paper` (an author, a title, a year, an identifier) stands in the source or summary."""
        text = f"{self.summary} {self.source}".casefold()
        return all(word in text for word in paper.casefold().split())


def read_header(path: Path) -> Header:
    """The header of a file; raises OSError and UnicodeDecodeError as reading does."""
    lines = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                break
            lines.append(line.lstrip("#").strip())
    paragraphs: dict[str, list[str]] = {"summary": lines[:1], "teaches": [], "source": [], "tier": []}
    current = "teaches"
    for line in lines[1:]:
        for start, name in (("Teaches: ", "teaches"), ("Source: ", "source"), ("Tier ", "tier")):
            if line.startswith(start):
                current, line = name, line if name == "tier" else line.removeprefix(start)
        paragraphs[current].append(line)
    told = {name: " ".join(filter(None, parts)) for name, parts in paragraphs.items()}
    tier = _tier.search(told.pop("tier"))
    return Header(**told, tier=int(tier[1]) if tier else None, level=tier[2] if tier else "")
