"""`eulerstack plugins show`: one word, or one plugin, with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eulerstack.cli.failures import UsageFault
from eulerstack.cli.options import json_option
from eulerstack.cli.plugins import described, is_available, kernels_of
from eulerstack.cli.schema import word_rows
from eulerstack.cli.strangers import leniently
from eulerstack.cli.terminal import columns, say, say_json, say_pairs, short_bytes, short_count, styled, wrap
from eulerstack.errors import Diagnostic, EulerStackError, Message, ValidationError, msg
from eulerstack.i18n import declared
from eulerstack.i18n import gettext as _

if TYPE_CHECKING:
    from eulerstack.ir.types import ModelIR
    from eulerstack.plugins.manager import PluginRecord, Registry
    from eulerstack.plugins.primitive import Cost, Dims, Primitive


def show_plugin(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=_("A word of the language, a plugin or its package."))
    ] = None,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Prints everything that bears the name: words of several kinds may share one."""
    if name is None:
        raise UsageFault("NAME", msg("a value is missing"), msg("eulerstack plugins list"), "reference/cli.md#plugins")
    with leniently():
        _show(name, as_json)


def _show(name: str, as_json: bool) -> None:
    from eulerstack.plugins.manager import get_registry

    registry = get_registry()
    items = [*registry.primitives(), *registry.namespaces(), *registry.targets(), *registry.rules()]
    words = [item for item in items if _name_of(item) == name]
    plugins = [record for record in registry.records() if name in _names_of(record)] if not words else []
    if not words and not plugins:
        known = {_name_of(item) for item in items} | {each for one in registry.records() for each in _names_of(one)}
        raise _unknown(name, sorted(known), registry)
    if as_json:
        say_json([*(_data_of_word(item, registry) for item in words), *map(_data_of_plugin, plugins)])
        return
    for number, item in enumerate(words):
        if number:
            say()
        _print_word(_data_of_word(item, registry), item, registry)
    for number, record in enumerate(plugins):
        if number:
            say()
        _print_plugin(record)


def _name_of(item: Any) -> str:
    return str(getattr(item, "key", None) or item.name)


def _kind_of(item: Any) -> str:
    return str(getattr(item, "kind", None) or type(item).__name__.lower())


def _names_of(record: PluginRecord) -> tuple[str, ...]:
    return record.name, record.package, record.identity


def _unknown(name: str, known: list[str], registry: Registry) -> ValidationError:
    # Which kind it would be of is not known; a plugin that was set aside tells its words, or bears the vendor's name.
    reason = registry.explain_missing("mixer", name) if name.startswith("vendor.") else None
    nearest = get_close_matches(name, known, n=1, cutoff=0.5)
    fix: Message = msg("eulerstack plugins list")
    if reason is not None:
        fix = msg("eulerstack plugins doctor")
    elif nearest:
        fix = msg("eulerstack plugins show {name}", name=nearest[0])
    what = msg("there is no word and no plugin called {name}", name=repr(name))
    if reason is not None:
        what = msg("{what}; {reason}", what=what, reason=reason)
    return ValidationError([Diagnostic(ValidationError.category, what, fix, "reference/plugins.md#states")])


def _data_of_word(item: Any, registry: Registry) -> dict[str, Any]:
    from eulerstack.plugins.primitive import Primitive

    package, version = registry.provider(item)
    data: dict[str, Any] = {
        "kind": _kind_of(item),
        "name": _name_of(item),
        "summary": item.summary,
        "package": package,
        "version": version,
        "plugin": registry.record_of(item).name,
        "schema": _plain(getattr(item, "schema", None)),
        "presets": _presets_with(_kind_of(item), _name_of(item)),
    }
    if not isinstance(item, Primitive):
        return data
    return data | described(item) | {
        "block": item.block_name if item.schema is not None else None,
        "inline": _plain(item.inline),
        "state": list(item.state),
        "module": item.module or None,
        "reference": item.reference or None,
        "cost": _cost_data(item),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """A schema as JSON holds it, descriptions in the active language."""
    if isinstance(value, Mapping):
        return {
            key: declared(str(item)) if key == "description" and isinstance(item, str) and item else _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.render() if isinstance(value, Message) else value


def _presets_with(kind: str, name: str) -> list[str]:
    """The presets that say the word, or mean it by leaving it out."""
    from eulerstack.cli.options import read
    from eulerstack.presets import presets
    from eulerstack.schema.sections import DEFAULT_TYPES

    found = []
    implied = name in (*DEFAULT_TYPES.values(), "rope")
    for preset in presets():
        # A preset that this installation can't read uses nothing of it; `validate` says why.
        try:
            if (implied or name in preset.path.read_text(encoding="utf-8")) and (kind, name) in set(
                _used(read(str(preset.path))[1], name)
            ):
                found.append(preset.name)
        except (EulerStackError, OSError, UnicodeDecodeError):
            continue
    return found


def _used(ir: ModelIR, name: str) -> Iterator[tuple[str, str]]:
    from eulerstack.compiler.compile import nodes_of
    from eulerstack.schema.claims import claimed_key

    yield "position", ir.position.type
    yield "target", ir.compatibility["compile_target"]
    yield from (("ffn", layer.ffn.type) for layer in ir.layers)
    yield from ((kind, type_) for kind, type_, _ in nodes_of(ir))
    if any(claimed_key(path, [name]) for path in ir.extensions):
        yield "namespace", name


def _cost_data(primitive: Primitive) -> dict[str, Any] | None:
    from eulerstack.compiler.trial import tried

    trial = tried(primitive)
    if trial.cost is None or trial.dims is None:
        return None
    return {"at": _sizes(trial.dims), **_numbers(trial.cost)}


def _sizes(dims: Dims) -> dict[str, int]:
    return {"d_model": dims.d_model, "n_heads": dims.n_heads, "d_ff": dims.d_ff, "element_bytes": 2}


def _numbers(cost: Cost) -> dict[str, int]:
    return {
        "params": cost.params,
        "active_params": cost.active,
        "flops_per_token": cost.flops_per_token,
        "flops_per_token_per_context": cost.flops_per_token_per_context,
        "state_bytes_per_token": cost.state_bytes_per_token,
        "state_bytes_fixed": cost.state_bytes_fixed,
    }


def _print_word(data: Mapping[str, Any], item: Any, registry: Registry) -> None:
    from eulerstack.plugins.primitive import Primitive

    say(f"{data['kind']} {styled(data['name'], 'bold')}")
    for line in wrap(declared(data["summary"]), _width() - 2):
        say("  " + line)
    say()
    record = registry.record_of(item)
    pairs = [(_("Package"), f"{data['package']} {data['version']} ({record.state})")]
    if isinstance(item, Primitive):
        pairs += [(_("Paper"), item.paper)] if item.paper else []
        if item.requires:
            pairs.append((_("Requires"), ", ".join(item.requires)))
        pairs.append((_("Kernel"), _kernel_text(item)))
        pairs += [(_("State"), ", ".join(item.state))] if item.state else []
        pairs += [(_("Class"), item.module)] if item.module else []
        pairs += [(_("Reference"), item.reference)] if item.reference else []
    say_pairs(pairs)
    _print_words(data, item)
    if data.get("cost"):
        _print_cost(data["cost"])
    say()
    say(styled(_("Presets that use it"), "bold"))
    for line in wrap(", ".join(data["presets"]) or "—", _width() - 2):
        say("  " + line)


def _kernel_text(primitive: Primitive) -> str:
    missing = [kernel.name for kernel in primitive.kernels if not is_available(kernel)]
    text = kernels_of(primitive)
    return _("{kernels}; not installed: {names}").format(kernels=text, names=", ".join(missing)) if missing else text


def _print_words(data: Mapping[str, Any], item: Any) -> None:
    block = data.get("block") or data["name"]
    for title, schema in (
        (_("Words beside the type"), {"properties": getattr(item, "inline", {})}),
        (_("Words of {block}").format(block=block), getattr(item, "schema", None) or {}),
    ):
        if rows := word_rows(schema):
            say()
            say(styled(title, "bold"))
            say_pairs(rows)


def _print_cost(cost: Mapping[str, Any]) -> None:
    say()
    at = cost["at"]
    title = _("Cost at d_model {d_model}, {n_heads} heads, d_ff {d_ff}, 2 bytes a number").format(**at)
    for line in wrap(title, _width()):
        say(styled(line, "bold"))
    pairs = [(_("Parameters"), f"{cost['params']:,}")]
    if cost["active_params"] != cost["params"]:
        pairs.append((_("Active parameters"), f"{cost['active_params']:,}"))
    pairs.append((_("FLOPs per token"), short_count(cost["flops_per_token"], "G")))
    if cost["flops_per_token_per_context"]:
        pairs.append((_("and per token it sees"), short_count(cost["flops_per_token_per_context"], "G")))
    if cost["state_bytes_per_token"]:
        pairs.append((_("Cache per token"), short_bytes(cost["state_bytes_per_token"])))
    if cost["state_bytes_fixed"]:
        pairs.append((_("Cache per sequence"), short_bytes(cost["state_bytes_fixed"])))
    say_pairs(pairs)


def _data_of_plugin(record: PluginRecord) -> dict[str, Any]:
    return {
        "kind": "plugin",
        "name": record.name,
        "package": record.package,
        "version": record.version,
        "api_version": record.api_version,
        "state": record.state,
        "error": record.error.render() if record.error else None,
        "traceback": record.traceback or None,
        "provides": [{"kind": space, "name": name} for space, name in record.provides],
        "deprecations": [notice.render() for notice in record.deprecations],
    }


def _print_plugin(record: PluginRecord) -> None:
    say(f"plugin {styled(record.identity, 'bold')}")
    api = "—" if record.api_version is None else str(record.api_version)
    say_pairs([(_("Version"), record.version), ("API", api), (_("State"), record.state)])
    for text in [*([record.error] if record.error else []), *record.deprecations]:
        for line in wrap(text.render(), _width() - 2):
            say("  " + line)
    if record.provides:
        say()
        say(styled(_("Provides"), "bold"))
        spaces = dict.fromkeys(space for space, _name in record.provides)
        say_pairs([(space, ", ".join(name for its, name in record.provides if its == space)) for space in spaces])


def _width() -> int:
    return min(columns(), 110)
