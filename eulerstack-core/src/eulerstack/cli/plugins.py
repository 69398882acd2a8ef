"""`eulerstack plugins list`: what is installed, what it provides, and what was set aside and why."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from eulerstack.cli.options import json_option
from eulerstack.cli.terminal import Column, say, say_json, say_table, styled, visible
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.plugins.manager import PluginRecord, Registry
    from eulerstack.plugins.primitive import Primitive


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
            (kind, name, *origin, record.state, kernel_in_use(registry.get(kind, name)))
            for kind, name in record.primitives
        ]
    return [("plugin", record.name, *origin, record.state, "—")]


def kernel_in_use(primitive: Primitive) -> str:
    """The first kernel whose packages are installed, with the device it needs; "torch" where there is none.

    Looks packages up without importing them.
    """
    for kernel in primitive.kernels:
        if all(find_spec(package) is not None for package in kernel.requires):
            return f"{kernel.name} ({kernel.device})"
    return "torch"


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
            {"kind": kind, "name": name}
            | (
                {"summary": registry.get(kind, name).summary, "kernel": kernel_in_use(registry.get(kind, name))}
                if record.state == "ok"
                else {}
            )
            for kind, name in record.primitives
        ],
    }
