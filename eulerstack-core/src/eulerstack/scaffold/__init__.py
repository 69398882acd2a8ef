"""Writes a new plugin package that is complete: `eulerstack plugins new`.

The templates are whole packages of the vendor "acme" with the word "sample", each a folder of files that end in
`.txt`, so that no tool takes them for code of ours. Writing one means putting other names in their place.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from eulerstack import __version__
from eulerstack.errors import Diagnostic, Message, ValidationError, msg
from eulerstack.plugins.sources import OWN_PACKAGES

KINDS = ("mixer", "ffn", "integrator", "memory", "residual", "namespace")
TEMPLATES = Path(__file__).parent / "templates"
SUFFIX = ".txt"
PART = re.compile(r"[a-z][a-z0-9_]{0,19}")
SEE = "writing-a-plugin.md#begin-with-a-package"
# What each file is for, as the table in README.md says it.
PURPOSES = (
    ("src/eulerstack_acme_sample/plugin.py", "the hooks: what this package hands out"),
    ("src/eulerstack_acme_sample/declarations/sample.py", "the words, the price and the state; no torch"),
    ("src/eulerstack_acme_sample/sample.py", "the schema of the key, and the function that compiles its value"),
    ("src/eulerstack_acme_sample/modules/sample.py", "the nn.Module; what exports carry"),
    (
        "src/eulerstack_acme_sample/reference/sample.py",
        "the same, written out plainly, for tests and readers",
    ),
    ("src/eulerstack_acme_sample/presets/acme-sample.yml", "a spec that uses it"),
    ("tests/test_conformance.py", "what every plugin must keep, asked of this one"),
)


@dataclass(frozen=True)
class Names:
    """What a package and its word are called, from the two parts of `<vendor>.<word>`."""

    vendor: str
    word: str

    @property
    def base(self) -> str:
        """Both parts; one of them where they are the same."""
        return self.word if self.vendor == self.word else f"{self.vendor}_{self.word}"

    @property
    def package(self) -> str:
        """The name that it is imported by."""
        return f"eulerstack_{self.base}"

    @property
    def distribution(self) -> str:
        """The name that it is installed by."""
        return self.package.replace("_", "-")

    @property
    def preset(self) -> str:
        """The name of its preset."""
        return self.base.replace("_", "-")

    @property
    def full(self) -> str:
        """The word, as a spec says it."""
        return f"vendor.{self.vendor}.{self.word}"

    def put_into(self, text: str) -> str:
        """A template's text with these names in the place of acme's."""
        camel = "".join(part.capitalize() for part in self.base.split("_"))
        names = {
            "eulerstack_acme_sample": self.package,
            "eulerstack-acme-sample": self.distribution,
            "vendor.acme.sample": self.full,
            "acme-sample": self.preset,
            "acme_sample": self.base,
            "AcmeSample": camel,
            "SAMPLE": self.word.upper(),
            "sample": self.word,
        }
        return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


def parsed(name: str) -> Names:
    """The names that `<vendor>.<word>` or `vendor.<vendor>.<word>` stands for; a single part is both.

    Errors: ValidationError for a name that can't be a package's, or that is one of this project's.
    """
    parts = name.removeprefix("vendor.").split(".")
    if len(parts) > 2 or not all(PART.fullmatch(part) and not keyword.iskeyword(part) for part in parts):
        raise _refusal(
            name,
            msg("a plugin's name is of the form vendor.word, each of small letters, digits and _, at most 20"),
            msg("eulerstack plugins new acme.gated_average --kind mixer"),
        )
    names = Names(parts[0], parts[-1])
    if names.distribution in OWN_PACKAGES or names.vendor == "eulerstack":
        raise _refusal(
            name,
            msg("the name {name} belongs to this project", name=names.distribution),
            msg("put your own name before it, as in acme.{name}", name=names.word),
        )
    return names


def files_of(kind: str, names: Names) -> dict[str, str]:
    """The text of every file of a new package, by its path in it."""
    found: dict[str, str] = {}
    for root in (TEMPLATES / "common", TEMPLATES / kind):
        for path in sorted(root.rglob(f"*{SUFFIX}")):
            found[path.relative_to(root).as_posix().removesuffix(SUFFIX)] = path.read_text(encoding="utf-8")
    rows = [f"| `{path}` | {purpose} |" for path, purpose in PURPOSES if path in found]
    values = {
        "{description}": f"An EulerStack plugin: the {kind} vendor.acme.sample.",
        "{version}": __version__,
        "{files}": "\n".join(rows),
    }
    for placeholder, value in values.items():
        found = {path: text.replace(placeholder, value) for path, text in found.items()}
    return {names.put_into(path): names.put_into(text) for path, text in sorted(found.items())}


def _refusal(name: str, what: Message, fix: Message) -> ValidationError:
    return ValidationError([Diagnostic(ValidationError.category, what, fix, SEE, name)])
