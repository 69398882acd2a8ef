"""The text of a spec in which every key says what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from eulerstack.cli.page.html import element, join
from eulerstack.dsl.paths import dotted
from eulerstack.i18n import gettext as _
from eulerstack.i18n import language

if TYPE_CHECKING:
    from eulerstack.dsl.paths import Path
    from eulerstack.dsl.source import Spec
    from eulerstack.ir.types import ModelIR


def spec_with_help(spec: Spec, ir: ModelIR) -> str:
    """The spec's own text; where `--set` changed it, the whole spec in canonical form."""
    from eulerstack.plugins.manager import get_registry
    from eulerstack.schema.assemble import assemble

    if spec.assigned or not spec.text:
        from eulerstack.dsl.source import parse_text
        from eulerstack.ir.printer import print_ir

        spec = parse_text(print_ir(ir), spec.file)
    schema = assemble(get_registry(), language())
    marks: dict[int, list[tuple[int, str, str]]] = {}
    for path, place in spec.key_positions.items():
        found = word_at(schema, path, spec.raw)
        if found is not None:
            marks.setdefault(place.line, []).append((place.column, str(path[-1]), help_text(path, found)))
    lines = [_marked(line, sorted(marks.get(number, ()))) for number, line in enumerate(spec.text.split("\n"), 1)]
    hint = _("Point at a key, or go to it with Tab, to see what it means.")
    return join(
        element("p", hint, class_="note", id="spec-hint"),
        '<div class="source"><pre class="spec" tabindex="0"><code>' + "\n".join(lines).rstrip() + "</code></pre></div>",
        '<p class="help" id="help" role="status" aria-live="polite">&nbsp;</p>',
    )


def _marked(line: str, keys: list[tuple[int, str, str]]) -> str:
    """A line of the spec as HTML, its keys as elements with their help."""
    if line.lstrip().startswith("#"):
        return element("span", line, class_="comment")
    pieces, end = [], 0
    for column, key, text in keys:
        start = column - 1
        written = next((form for form in (key, f'"{key}"', f"'{key}'") if line.startswith(form, start)), None)
        if written is None or start < end:
            continue
        pieces.append(escape(line[end:start]))
        pieces.append(element("span", written, class_="key", tabindex=0, title=text))
        end = start + len(written)
    return "".join([*pieces, escape(line[end:])])


def help_text(path: Path, word: Mapping[str, Any]) -> str:
    """A word's path, meaning, kind and default, in one line."""
    kinds = word.get("type", ())
    parts = [" | ".join([kinds] if isinstance(kinds, str) else kinds)]
    if "default" in word:
        from eulerstack.dsl.paths import show

        parts.append(_("default {value}").format(value=show(word["default"])))
    details = ", ".join(part for part in parts if part)
    meaning = word.get("description", "")
    return f"{dotted(path)}: {meaning}{f' ({details})' if details else ''}"


def word_at(schema: Mapping[str, Any], path: Path, data: Any) -> Mapping[str, Any] | None:
    """The schema of the value at `path`, for the types of primitives that `data` chooses; None where unknown."""
    here: Mapping[str, Any] | None = schema
    for part in path:
        if here is None:
            return None
        here = here.get("items") if isinstance(part, int) else _property(here, part, data)
        data = data[part]
    return here if here is not None and "description" in here else None


def _property(schema: Mapping[str, Any], key: str, data: Any) -> Mapping[str, Any] | None:
    choices = [choice["properties"][key] for choice in _chosen(schema, data) if key in choice.get("properties", {})]
    known = [word for word in choices if isinstance(word, Mapping)]
    if known:
        return next((word for word in known if "description" in word), known[0])
    others = schema.get("additionalProperties")
    return others if isinstance(others, Mapping) else None


def _chosen(schema: Mapping[str, Any], data: Any) -> Iterator[Mapping[str, Any]]:
    """The schema itself, and those of its conditions that `data` fulfils."""
    yield schema
    for condition in schema.get("allOf", ()):
        wanted = condition.get("if", {}).get("properties", {})
        constants = {name: word["const"] for name, word in wanted.items() if "const" in word}
        if (
            constants
            and isinstance(data, Mapping)
            and all(data.get(name) == value for name, value in constants.items())
        ):
            yield from _chosen(condition.get("then", {}), data)
