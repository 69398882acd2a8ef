"""`eulerstack plugins list`: what is installed, what it provides, and what was set aside and why."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from eulerstack.cli.options import json_option
from eulerstack.cli.terminal import Column, columns, is_terminal, say, say_json, say_table, styled, visible, wrap
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
    say_table(
        [Column(_("Kind")), Column(_("Name"), wraps=True), Column(_("Package"), wraps=True), Column(_("Version")),
         Column("API"), Column(_("State")), Column(_("Kernel"), wraps=True)],
        rows,
    )  # fmt: skip
    for record in registry.records():
        if record.error is not None:
            name = record.identity
            first, *others = _lines(f"{name}: {record.state}: {record.error.render()}")
            say(first.replace(name, styled(name, "warning"), 1))
            for line in others:
                say("  " + line)


def _lines(text: str) -> list[str]:
    """`text` as a terminal shows it; elsewhere one line, which programs read."""
    return wrap(text, min(columns(), 110) - 2) if is_terminal() else [text]


def _rows(record: PluginRecord, registry: Registry) -> list[tuple[str, ...]]:
    origin = (record.package, record.version, "—" if record.api_version is None else str(record.api_version))
    rows: list[tuple[str, ...]] = [
        (kind, name, *origin, record.state, kernels_of(registry.get(kind, name)))
        for kind, name in (record.primitives if record.state == "ok" else ())
    ]
    rows += [
        ("word" if space.startswith("field") else space, name, *origin, record.state, "—")
        for space, name in (record.provides if record.state == "ok" else ())
        if space in ("namespace", "target") or space.startswith("field")
    ]
    return rows or [("plugin", record.name, *origin, record.state, "—")]


def kernels_of(primitive: Primitive) -> str:
    """What computes a primitive here: "torch", and the kernels whose packages are installed, with their device.

    Nothing is imported to find out. Kernels come first where they are in use, that is where the machine has their
    device; elsewhere they lie idle. A model takes them for the tensors that are on their device.
    """
    if not primitive.module and primitive.implementations is None:
        return "—"
    installed = [kernel for kernel in primitive.kernels if is_available(kernel)]
    used = [f"{kernel.name} ({kernel.device})" for kernel in installed if in_use(kernel)]
    idle = [f"{kernel.name} ({kernel.device})" for kernel in installed if not in_use(kernel)]
    return ", ".join([*used, "torch", *idle])


def in_use(kernel: Kernel) -> bool:
    """Whether a kernel computes here: it is installed, and its device is there."""
    return is_available(kernel) and (kernel.device != "cuda" or (has_nvidia_driver() and torch_knows_cuda()))


def is_available(kernel: Kernel) -> bool:
    """Whether the packages of a kernel are installed."""
    return all(find_spec(package) is not None for package in kernel.requires)


def has_nvidia_driver() -> bool:
    """Whether the driver of an NVIDIA device is loaded, natively or under WSL."""
    return any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/dxg"))


def torch_knows_cuda() -> bool:
    """Whether the installed torch is one that can be; builds for processors alone say so in their version."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False


def _data(record: PluginRecord, registry: Registry) -> dict[str, object]:
    return {
        "name": record.name,
        "package": record.package,
        "version": record.version,
        "api_version": record.api_version,
        "state": record.state,
        "error": record.error.render() if record.error else None,
        "traceback": record.traceback or None,
        "deprecations": [notice.render() for notice in record.deprecations],
        "provides": [{"kind": space, "name": name} for space, name in record.provides],
        "primitives": [
            {"kind": kind, "name": name} | (described(registry.get(kind, name)) if record.state == "ok" else {})
            for kind, name in record.primitives
        ],
    }


def described(primitive: Primitive) -> dict[str, object]:
    """What programs are told about a primitive."""
    return {
        "summary": primitive.summary,
        "paper": primitive.paper or None,
        "requires": list(primitive.requires),
        "kernels": [
            {
                "name": kernel.name,
                "device": kernel.device,
                "available": is_available(kernel),
                "in_use": in_use(kernel),
            }
            for kernel in primitive.kernels
        ],
    }
