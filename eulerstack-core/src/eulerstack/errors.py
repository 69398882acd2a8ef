"""Diagnostics: what went wrong, where, and what to type instead.

Every problem a person can cause is a `Diagnostic`; a stage collects all of its own and raises them together as
one `EulerStackError`. The printed form is three lines, `<Category>: <file>:<line>:<column>: <path>: <what>`,
`Fix: <what to type>` and `See: <page#anchor>`. The category, `Fix:` and `See:` stay untranslated so that scripts
can rely on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from eulerstack.i18n import DOMAIN, translator

Translate = Callable[[str], str]


@dataclass(frozen=True)
class Message:
    """A translatable sentence: an English template, which is also its catalog key, and what fills it."""

    template: str
    values: tuple[tuple[str, Any], ...] = ()
    domain: str = DOMAIN

    def render(self, translate: Translate | None = None) -> str:
        """The sentence in the language of `translate`, or of the active catalog when none is given.

        A plugin's sentence that can't be filled stays as it is written: it must not hide what it is about.
        """
        if translate is None:
            translate = translator(self.domain)
        text = translate(self.template)
        if not self.values:
            return text
        try:
            return text.format(
                **{key: value.render(translate) if isinstance(value, Message) else value for key, value in self.values}
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            if self.domain == DOMAIN:
                raise
            return self.template if text == self.template else self.render(str)

    def __str__(self) -> str:
        return self.render()


def msg(template: str, /, **values: Any) -> Message:
    """A `Message`; catalogs are extracted from calls of this name."""
    return Message(template, tuple(values.items()))


@dataclass(frozen=True)
class Location:
    """A place in a file; `line` and `column` count from 1, `file` is as the user named it."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Diagnostic:
    """One problem.

    `path` is the dotted path in the spec ("layer_templates.decoder.mixer.attention.window"), empty for the whole file.
    `see` is a documentation page with an anchor, relative to the documentation's root.
    """

    category: str
    what: Message
    fix: Message
    see: str
    path: str = ""
    location: Location | None = None

    def lines(self) -> tuple[str, str, str]:
        """The three printed lines, in the active language."""
        where = [str(self.location)] if self.location else []
        head = ": ".join([self.category, *where, *([self.path] if self.path else []), self.what.render()])
        return tuple(_one_line(text) for text in (head, f"Fix: {self.fix.render()}", f"See: {self.see}"))  # type: ignore[return-value]


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


@dataclass(frozen=True)
class Finding:
    """A realism warning: legal, but probably not what was meant. Printed under `--report`."""

    rule: str
    what: Message
    path: str = ""
    location: Location | None = None


class EulerStackError(Exception):
    """All diagnostics of one stage. `str()` gives their three-line forms."""

    category = "EulerStackError"

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n".join("\n".join(diagnostic.lines()) for diagnostic in self.diagnostics)


class ValidationError(EulerStackError):
    """The text is not a spec: syntax, unknown keys, types, ranges."""

    category = "ValidationError"


class CompatibilityError(EulerStackError):
    """Each word is legal, but together they contradict each other or what is installed."""

    category = "CompatibilityError"


class NormalizationError(EulerStackError):
    """The spec can't be expanded into an IR."""

    category = "NormalizationError"


class CompileError(EulerStackError):
    """The IR is fine, but its artifact can't be built or written."""

    category = "CompileError"


CATEGORIES: dict[str, type[EulerStackError]] = {
    cls.category: cls for cls in (ValidationError, CompatibilityError, NormalizationError, CompileError)
}


@dataclass
class Collector:
    """Gathers the diagnostics of one stage and raises them together."""

    category: str
    locate: Callable[[str], Location | None] = lambda path: None
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def add(self, path: str, what: Message, fix: Message, see: str, location: Location | None = None) -> None:
        """Records a problem at `path`; its place is looked up unless a more exact `location` is given."""
        self.diagnostics.append(Diagnostic(self.category, what, fix, see, path, location or self.locate(path)))

    def raise_if_any(self) -> None:
        """Raises the category's error when anything was recorded, sorted by place in the file."""
        if self.diagnostics:
            ordered = sorted(
                self.diagnostics,
                key=lambda d: (d.location.line, d.location.column) if d.location else (0, 0),
            )
            raise CATEGORIES[self.category](ordered)
