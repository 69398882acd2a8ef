"""Cases of malformed specs: a text in which `§` marks each place that must be reported, and what must be said."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from eulerstack.dsl.source import load_source
from eulerstack.errors import Diagnostic, EulerStackError, Location
from eulerstack.schema.compatibility import check_compatibility
from eulerstack.schema.validate import validate_structure

BASE = """\
schema_version: 1
model:
  name: tiny
  d_model: 64
  vocab_size: 256
  max_seq_len: 128
  n_heads: 4
tokenizer_contract:
  type: hf
embedding:
  type: learned
  positional: rope
layer_templates:
  decoder:
    mixer:
      type: attention
      attention:
        window: null
    ffn:
      type: gated_mlp
      activation: swiglu
    norm:
      type: rmsnorm
      position: pre
    residual:
      type: sequential
    state:
      kv_cache: true
layer_schedule:
  - template: decoder
    repeat: 2
head:
  type: causal_lm
"""
SECONDS = 2


@dataclass(frozen=True)
class Case:
    """A malformed spec.

    `problems` are (path, piece of the message, piece of the Fix line), one for each `§` in the order of the text;
    in bytes and in texts without marks, `places` gives line and column instead.
    """

    name: str
    text: str | bytes
    category: str
    problems: tuple[tuple[str, str, str], ...]
    places: tuple[tuple[int, int], ...] = ()

    def content(self) -> bytes:
        """The file's bytes, without the marks."""
        return self.text if isinstance(self.text, bytes) else self.text.replace("§", "").encode()

    def expected_places(self) -> list[tuple[int, int]]:
        """Line and column of each problem, from 1."""
        if self.places or isinstance(self.text, bytes):
            return list(self.places)
        found = []
        plain = ""
        for part in self.text.split("§")[:-1]:
            plain += part
            found.append((plain.count("\n") + 1, len(plain) - plain.rfind("\n")))
        return found


def changed(old: str, new: str, base: str = BASE) -> str:
    """The base spec with one piece replaced; the piece must be there exactly once."""
    assert base.count(old) == 1, f"{old!r} stands {base.count(old)} times in the base spec"
    return base.replace(old, new)


def appended(text: str) -> str:
    """The base spec with more lines at its end."""
    return BASE + text


def invalid(name: str, text: str | bytes, *problems: tuple[str, str, str], places: Any = ()) -> Case:
    """A case that must raise a ValidationError."""
    return Case(name, text, "ValidationError", problems, tuple(places))


def incompatible(name: str, text: str, *problems: tuple[str, str, str]) -> Case:
    """A case that must raise a CompatibilityError."""
    return Case(name, text, "CompatibilityError", problems)


def check(case: Case, folder: Path, registry: Any) -> None:
    """Reads and validates the case's file as a command would, and compares everything it says with what it should."""
    file = folder / "spec.yml"
    file.write_bytes(case.content())
    before = sorted(path.name for path in folder.iterdir())
    diagnostics = diagnostics_of(lambda: validate(str(file), registry))
    assert sorted(path.name for path in folder.iterdir()) == before, "something was written"
    said = [(each.category, each.location, each.path) for each in diagnostics]
    wanted = [
        (case.category, Location(str(file), line, column), path)
        for (line, column), (path, _, _) in zip(case.expected_places(), case.problems, strict=True)
    ]
    assert said == wanted, "\n".join(map(repr, diagnostics))
    for each, (_, what, fix) in zip(diagnostics, case.problems, strict=True):
        assert what in each.what.render(str), each.what.render(str)
        assert fix in each.fix.render(str), each.fix.render(str)
        assert_three_lines(each)


def validate(file: str, registry: Any) -> None:
    """What `eulerstack validate` does with a file."""
    spec = load_source(file)
    validate_structure(spec, registry)
    check_compatibility(spec, registry)


def diagnostics_of(call: Callable[[], object]) -> tuple[Diagnostic, ...]:
    """The diagnostics that a call raises, within the time that hostile input is allowed."""
    with deadline(SECONDS):
        try:
            call()
        except EulerStackError as error:
            return error.diagnostics
    return ()


def assert_three_lines(diagnostic: Diagnostic) -> None:
    """That a diagnostic prints as exactly three lines that a terminal shows as they are."""
    lines = diagnostic.lines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{diagnostic.category}: {diagnostic.location}: ")
    assert lines[1].startswith("Fix: ")
    assert lines[2].startswith("See: ")
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < 700, line


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block when it uses more than `seconds` of processor time, or waits half a minute.

    Processor time, because the machine may be busy with other tests.
    """

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 30)}
    before = {number: signal.signal(number, expire) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
