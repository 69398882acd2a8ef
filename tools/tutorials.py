"""Runs what the tutorials show, and writes what the runs print.

Usage: `python tools/tutorials.py [PAGE …]` rewrites the output in all pages, or in those named; with `--check` it names
the pages that would change and exits with 1.

A page is run from top to bottom in a folder of its own:

    ```yaml title="FILE"                a file, as it stands here
    ```diff title="FILE → FILE"         a file made from another by this change
    ```python title="FILE"              likewise a file
    ```python                           a piece of one program: all pieces of a page share their names
    ```text                             after such a piece: what it printed
    ```console                          lines that begin with `$ ` are run, the others are what they print

Where a shown output has a line `...`, any lines may stand in its place; where a line has `…`, any text. `# exit 1`
after a command is the exit code that it must have (0 without one). Other blocks are only text.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```(?P<kind>\w+)(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
WORD = re.compile(r'(\w+)="([^"]*)"')
EXIT = re.compile(r"\s+# exit (\d+)$")
ELLIPSIS, OMITTED = "...", "…"
WIDTH = "80"


class TutorialError(Exception):
    """What a page shows does not work."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    named = [Path(each).resolve() for each in arguments if not each.startswith("--")]
    stale = []
    for page in named or sorted(PAGES.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        try:
            made = rerun(text)
        except TutorialError as error:
            print(f"{page.relative_to(ROOT)}: {error}")
            return 1
        if made != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(made, encoding="utf-8")
        print(f"{page.relative_to(ROOT)}{' (changed)' if made != text else ''}", flush=True)
    return 1 if stale and "--check" in arguments else 0


def rerun(page: str) -> str:
    """The page with what its commands and programs print now.

    Raises TutorialError if a command ends with another exit code than the page says, or a program raises.
    """
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        run = _Run()
        return BLOCK.sub(run.block, page)


class _Run:
    """One page's folder, its program's names and what that printed last."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed: str | None = None

    def block(self, found: re.Match[str]) -> str:
        """A block as it is to stand in the page."""
        kind, text, words = found["kind"], found["text"], dict(WORD.findall(found["words"]))
        printed, self.printed = self.printed, None
        if kind == "console":
            text = "".join(self.command(line, shown) for line, shown in _commands(text))
        elif kind == "text" and printed is not None:
            text = _elided(text, printed)
        elif kind == "diff" and "title" in words:
            source, _, target = words["title"].partition(" → ")
            Path(target).write_text(_patched(Path(source).read_text(encoding="utf-8"), text), encoding="utf-8")
        elif "title" in words:
            Path(words["title"]).write_text(text, encoding="utf-8")
        elif kind == "python":
            self.printed = self.program(text)
        return f"```{kind}{found['words']}\n{text}```"

    def program(self, text: str) -> str:
        """What a piece of the page's program prints."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                exec(compile(text, "the page's program", "exec"), self.names)  # noqa: S102
            except Exception as error:
                raise TutorialError(f"{type(error).__name__}: {error} in\n{text}") from error
        return out.getvalue()

    def command(self, line: str, shown: str) -> str:
        """A command and what it prints."""
        expected = EXIT.search(line)
        words = EXIT.sub("", line)
        ours = words.startswith(("eulerstack ", "python -m eulerstack.")) and not set(words) & set("|>")
        code, printed = _eulerstack(words) if ours else _shell(words)
        if code != int(expected[1] if expected else 0):
            raise TutorialError(f"`{line}` ended with {code}:\n{printed}")
        return f"$ {line}\n{_elided(shown, printed)}"


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, shown output) of a console block; a command goes on where its line ends with a backslash."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = 1
        while lines[length - 1].endswith("\\"):
            length += 1
        yield "\n".join(lines[:length]), "".join(f"{each}\n" for each in lines[length:])


def _eulerstack(line: str) -> tuple[int, str]:
    """Exit code and output of a command of ours, run in this process."""
    from eulerstack.cli import main as run

    words = shlex.split(line.replace("\\\n", ""), comments=True)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = run(words[1:]) if words[0] == "eulerstack" else _module(words[2], words[3:])
    return code, out.getvalue()


def _module(name: str, arguments: list[str]) -> int:
    """The exit code of `python -m NAME`."""
    kept, sys.argv = sys.argv, [name, *arguments]
    try:
        with warnings.catch_warnings():
            # A process of its own would not have imported the module before.
            warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = kept
    return 0


def _shell(line: str) -> tuple[int, str]:
    """Exit code and output of any other command."""
    out = subprocess.PIPE
    done = subprocess.run(["bash", "-c", line], stdout=out, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def _elided(shown: str, printed: str) -> str:
    """What was printed; or what is shown, where `...` stands in it for lines of that, and `…` for a part of a line."""
    printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    lines = shown.splitlines()
    if ELLIPSIS not in lines and OMITTED not in shown:
        return printed
    pattern = "".join(
        "(?s:.*)" if line == ELLIPSIS else re.escape(line).replace(OMITTED, ".*") + r"\n" for line in lines
    )
    if re.fullmatch(pattern, printed):
        return shown
    if ELLIPSIS in lines:
        raise TutorialError(f"what is shown with `{ELLIPSIS}` is not in what is printed:\n{shown}\nbut\n{printed}")
    return printed


def _patched(text: str, change: str) -> str:
    """A file's text after a change of `-` and `+` lines; the other lines say where. Where a `-` follows a `+`, another
    place may begin."""
    parts: list[list[str]] = []
    for line in change.splitlines(keepends=True):
        if not parts or (line.startswith("-") and parts[-1][-1].startswith("+")):
            parts.append([])
        parts[-1].append(line)
    for part in parts:
        before = "".join(line[1:] for line in part if not line.startswith("+"))
        after = "".join(line[1:] for line in part if not line.startswith("-"))
        if text.count(before) != 1:
            raise TutorialError(f"the change fits {text.count(before)} places:\n{''.join(part)}")
        text = text.replace(before, after)
    return text


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """In a folder, 80 columns wide, without colours, offline."""
    kept, place = dict(os.environ), os.getcwd()
    os.environ.update(COLUMNS=WIDTH, NO_COLOR="1", HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore", TQDM_DISABLE="1")
    os.environ.pop("EULERSTACK_LANG", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
