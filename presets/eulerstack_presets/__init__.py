"""The presets that ship with eulerstack: `*.yml` specs in this folder, tokenizers in `tokenizers/`."""

from __future__ import annotations

from pathlib import Path

from eulerstack.plugins import PresetFolder, hookimpl


@hookimpl
def eulerstack_presets() -> list[PresetFolder]:
    """This folder."""
    return [PresetFolder(str(Path(__file__).parent))]
