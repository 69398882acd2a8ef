"""A folder of presets, and nothing else."""

from __future__ import annotations

from pathlib import Path

from eulerstack.plugins import PresetFolder, hookimpl


@hookimpl
def eulerstack_presets() -> list[PresetFolder]:
    """The presets of this package."""
    return [PresetFolder(str(Path(__file__).parent / "presets"))]
