"""Writing to people and to pipes: rich on a terminal, plain text elsewhere, aligned by cells in every script."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

CLOSING = "、。，．！？；：）」』】》〉〕”’…),.!?;:]}ーっゃゅょッャュョァィゥェォ々"
OPENING = "（「『【《〈〔“‘([{"
UNIT_AFTER_SPACE = re.compile(r"(?<=\d) (?=(?:[KMGT]i)?B\b)")
STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
# Of tables on a terminal, in cells.
GAP, NARROWEST = 2, 8
STYLES = {"bold": "1", "dim": "2", "error": "1;31", "warning": "33", "name": "36"}


@dataclass(frozen=True)
class Column:
    """A table's column: its translated title, its alignment, and whether it may wrap."""

    title: str
    right: bool = False
    wraps: bool = False


def cells(text: str) -> int:
    """The width of `text` on a terminal; East Asian wide characters take two cells."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at spaces and between wide characters.

    A line never begins with closing punctuation or a small kana, nor ends with an opening bracket; a number of bytes
    stays with its unit.
    """
    lines, current = [], ""
    for word in _breakable(text):
        if current and cells(current) + cells(word.rstrip()) > width:
            lines.append(current.rstrip())
            current = ""
        current += word
    return [*lines, current.rstrip()]


def _breakable(text: str) -> Iterator[str]:
    # Korean is written with spaces and breaks at them; Chinese and Japanese break between any two wide characters.
    piece = ""
    kept = {match.start() for match in UNIT_AFTER_SPACE.finditer(text)}
    for index, each in enumerate(text):
        piece += each
        following = text[index + 1 : index + 2]
        wide = _ideographic(each) or _ideographic(following)
        joins = each in OPENING or (following and following in CLOSING) or following == " "
        if (each == " " and following != " " and index not in kept) or (wide and not joins):
            yield piece
            piece = ""
    if piece:
        yield piece


def _ideographic(character: str) -> bool:
    return bool(character) and unicodedata.east_asian_width(character) in "WF" and not "가" <= character <= "힣"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person is looking at the stream (standard output by default) through a capable terminal."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns() -> int:
    """The terminal's width in cells; COLUMNS wins, 80 where there is no terminal."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style of `STYLES` on a terminal, unchanged elsewhere and under NO_COLOR."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """One line on standard output; of control characters only our own styles reach a terminal."""
    print("".join(part if STYLE.fullmatch(part) else visible(part) for part in STYLE.split(text)))


def visible(text: str) -> str:
    """`text` with control characters written out, so that a file's contents can't steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or unicodedata.category(each) not in ("Cc", "Cf", "Cs") else ascii(each)[1:-1]
        for each in text
    )


def say_json(data: Any) -> None:
    """`data` as indented JSON on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def say_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Terms and their explanations on standard output."""
    for line in in_pairs(pairs):
        say(line)


def in_pairs(pairs: Sequence[tuple[str, str]], indent: int = 2) -> Iterator[str]:
    """The lines of terms and their explanations, in two columns; long explanations wrap in theirs."""
    widest = max((cells(term) for term, _ in pairs), default=0)
    left = min(widest, 30)
    room = min(columns(), 110) - indent - left - 2
    for term, explanation in pairs:
        lines = wrap(explanation, room)
        start = " " * indent + styled(term, "name") + " " * (left - cells(term))
        if cells(term) > left:
            yield start
            start = " " * (indent + left)
        yield f"{start}  {lines[0]}".rstrip()
        yield from (" " * (indent + left + 2) + line for line in lines[1:])


def say_table(titles: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table: rich on a terminal; elsewhere aligned text, one row a line whatever its length."""
    rows = [[visible(text) for text in row] for row in rows]
    if is_terminal():
        _rich_table(titles, rows)
        return
    widths = [max(cells(line[i]) for line in [[c.title for c in titles], *rows]) for i in range(len(titles))]
    for line in [[column.title for column in titles], *rows]:
        padded = (_padded(text, width, c.right) for text, width, c in zip(line, widths, titles, strict=True))
        print("  ".join(padded).rstrip())


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if right else text + space


def _rich_table(titles: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    natural = [max([cells(c.title), *(cells(row[i]) for row in rows)]) for i, c in enumerate(titles)]
    for index, (column, width) in enumerate(zip(titles, _fitted(natural, titles), strict=True)):
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.wraps and width >= natural[index],
            style="cyan" if index == 0 else "",
            width=width,
        )
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    Console(highlight=False, width=columns()).print(table)


def _fitted(natural: Sequence[int], titles: Sequence[Column]) -> list[int]:
    """The columns' widths, widest first narrowed until the table fits the terminal.

    Those that may wrap are narrowed first; the others only where that isn't enough, and their words break then.
    """
    widths = list(natural)
    for narrow in ([i for i, column in enumerate(titles) if column.wraps], range(len(widths))):
        while narrow and sum(widths) + GAP * (len(widths) - 1) > columns():
            widest = max(narrow, key=lambda i: widths[i])
            if widths[widest] <= NARROWEST:
                break
            widths[widest] -= 1
    return widths


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows that something long is going on, and how far it has come, to a person who watches standard error.

    What is shown vanishes at the end.
    """
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from eulerstack.compiler.progress import watched

    shown = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*shown, console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task(text, total=None)
        with watched(lambda done, total: progress.update(task, completed=done, total=total)):
            yield


def short_count(number: float, billion: str = "B") -> str:
    """A count as people say it: 1.48B, 124.44M, 12.3K, 512. For FLOPs `billion` is "G"."""
    for size, suffix, digits in ((1e12, "T", 2), (1e9, billion, 2), (1e6, "M", 2), (1e3, "K", 1)):
        if abs(number) >= size:
            return f"{number / size:.{digits}f}{suffix}"
    return f"{number:g}"


def long_count(number: int) -> str:
    """A count twice: "1.48B (1,481,235,456)"."""
    return f"{short_count(number)} ({number:,})"


def short_bytes(number: float) -> str:
    """A number of bytes in binary units: 24 KiB, 1.5 GiB."""
    for size, suffix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(number) >= size:
            return f"{number / size:.4g} {suffix}"
    return f"{number:g} B"
