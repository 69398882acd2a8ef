"""Presets by name: the specs in every plugin's preset folder, and `load`, which takes a path or a preset's name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eulerstack.dsl.suggest import nearest
from eulerstack.errors import Diagnostic, ValidationError, msg
from eulerstack.preset_headers import Header, read_header

if TYPE_CHECKING:
    from eulerstack.dsl.source import Spec
    from eulerstack.plugins.manager import Registry

SUFFIXES = (".yml", ".yaml")


@dataclass(frozen=True)
class Preset:
    """A named spec file."""

    name: str
    path: Path

    @property
    def header(self) -> Header:
        """What the comment at the top of the file says; an empty one for a file that can't be read."""
        try:
            return read_header(self.path)
        except (OSError, UnicodeDecodeError):
            # `validate` says what is wrong with it; a list of presets goes on.
            return Header()


def presets(registry: Registry | None = None) -> list[Preset]:
    """All presets sorted by name. Where two folders have the same name, this project's own comes first."""
    from eulerstack.plugins.manager import get_registry

    found: dict[str, Preset] = {}
    for folder in (registry or get_registry()).presets():
        for path in _specs(Path(folder.path)):
            found.setdefault(path.stem, Preset(path.stem, path))
    return [found[name] for name in sorted(found)]


def _specs(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES and path.is_file())


def find(reference: str | Path, registry: Registry | None = None) -> Path:
    """The file that `reference` means: an existing file, a path by its looks, or a preset's name.

    Raises a ValidationError naming the nearest preset when it is none of them.
    """
    path = Path(reference)
    text = str(reference)
    if isinstance(reference, Path) or os.sep in text or "/" in text or os.path.isfile(text):
        return path
    known = {preset.name: preset for preset in presets(registry)}
    if text in known:
        return known[text].path
    if os.path.lexists(text) or (path.suffix in SUFFIXES and path.stem not in known):
        return path
    near = nearest(path.stem if path.suffix in SUFFIXES else text, known, cutoff=0.5)
    fix = msg("use the preset {name}", name=near) if near else msg("eulerstack presets list")
    if text == "-":
        fix = msg("use {option}", option="/dev/stdin")
    what = msg("there is no file and no preset called {name}", name=repr(text))
    raise ValidationError([Diagnostic("ValidationError", what, fix, "reference/cli.md#presets")])


def load(reference: str | Path, assignments: Sequence[str] = ()) -> Spec:
    """The spec in a file or preset: its data after expressions, with the position of every key and value.

    `assignments` change what the file says, as `--set` does: ["model.d_model=512", "layer_schedule[0].repeat=2"].
    Raises a ValidationError for a file that can't be read or is not a spec's YAML.
    """
    from eulerstack.dsl.source import load_source

    return load_source(find(reference), assignments)
