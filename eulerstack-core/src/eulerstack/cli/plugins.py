"""`eulerstack plugins list`: what is installed, what it provides, and what was set aside and why."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from eulerstack.cli.options import json_option
from eulerstack.cli.terminal import Column, say, say_json, say_table, styled, visible
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.plugins.manager import PluginRecord, Registry
    from eulerstack.plugins.primitive import Kernel, Primitive


def list_plugins(as_json: Annotated[bool, json_option()] = False) -> None:
    """A row for every word and for every plugin that was set aside; reasons follow below the table."""
    from eulerstack.plugins.manager import get_registry

    registry = get_registry(strict=False)
    for warning in registry.warnings():
        print(styled(visible(warning.render()), "warning", sys.stderr), file=sys.stderr)
    if as_json:
        say_json([_data(record, registry) for record in registry.records()])
        return
    rows = [row for record in registry.records() for row in _rows(record, registry)]
    titles = [_("Kind"), _("Name"), _("Package"), _("Version"), "API", _("State"), _("Kernel")]
    say_table([Column(title) for title in titles], rows)
    for record in registry.records():
        if record.error is not None:
            say(f"{styled(f'{record.package}:{record.name}', 'warning')}: {record.state}: {record.error.render()}")


def _rows(record: PluginRecord, registry: Registry) -> list[tuple[str, ...]]:
    origin = (record.package, record.version, "—" if record.api_version is None else str(record.api_version))
    if record.state == "ok" and record.primitives:
        return [
            (kind, name, *origin, record.state, kernels_of(registry.get(kind, name)))
            for kind, name in record.primitives
        ]
    return [("plugin", record.name, *origin, record.state, "—")]


def kernels_of(primitive: Primitive) -> str:
    """What computes a primitive here: "torch", and the kernels whose packages are installed, with their device.

    Nothing is imported to find out. Kernels come first where the machine has an NVIDIA driver, without which they lie
    idle; a model takes them for the tensors that are on their device.
    """
    installed = [kernel for kernel in primitive.kernels if is_available(kernel)]
    if not installed:
        return "torch"
    named = ", ".join(f"{kernel.name} ({kernel.device})" for kernel in installed)
    return f"{named}, torch" if has_nvidia_driver() else f"torch, {named}"


def is_available(kernel: Kernel) -> bool:
    """Whether the packages of a kernel are installed."""
    return all(find_spec(package) is not None for package in kernel.requires)


def has_nvidia_driver() -> bool:
    """Whether the driver of an NVIDIA device is loaded, natively or under WSL."""
    return any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/dxg"))


def _data(record: PluginRecord, registry: Registry) -> dict[str, object]:
    return {
        "name": record.name,
        "package": record.package,
        "version": record.version,
        "api_version": record.api_version,
        "state": record.state,
        "error": record.error.render() if record.error else None,
        "traceback": record.traceback or None,
        "primitives": [
            {"kind": kind, "name": name} | (_described(registry.get(kind, name)) if record.state == "ok" else {})
            for kind, name in record.primitives
        ],
    }


def _described(primitive: Primitive) -> dict[str, object]:
    return {
        "summary": primitive.summary,
        "paper": primitive.paper or None,
        "requires": list(primitive.requires),
        "kernels": [
            {"name": kernel.name, "device": kernel.device, "available": is_available(kernel)}
            for kernel in primitive.kernels
        ],
    }
