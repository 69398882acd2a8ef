"""Turns what the JSON Schema library complains about into what a person did and should type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from eulerstack.dsl.paths import Path, dotted, key_text, show
from eulerstack.dsl.suggest import MANY
from eulerstack.errors import Collector, Location, Message, msg
from eulerstack.schema import fixes
from eulerstack.schema.defaults import applicable
from eulerstack.schema.held import unnested
from eulerstack.schema.packages import package_of
from eulerstack.schema.places import place_of
from eulerstack.schema.sections import HELD_NAME, STAGE_WORDS
from eulerstack.schema.words import Places, fix_unknown, meant_value, one_of, places_of_words

KINDS_BY_PLACE = {
    "layer_templates.<name>.mixer": "mixer",
    "layer_templates.<name>.ffn": "ffn",
    "layer_templates.<name>.norm": "norm",
    "layer_templates.<name>.residual": "residual",
    "layer_templates.<name>.memory": "memory",
    "layer_schedule[].integrator": "integrator",
    "layer_schedule[].merge": "merge",
    "head": "head",
}
LocateKey = Callable[[Path], "Location | None"]


class Explainer:
    """Records each error of one validation as a problem that a person can act on."""

    def __init__(
        self,
        schema: Mapping[str, Any],
        registry: Any,
        problems: Collector,
        locate_key: LocateKey,
        raw: Mapping[str, Any],
    ):
        self._schema = schema
        self._raw = raw
        self._registry = registry
        self._problems = problems
        self._locate_key = locate_key
        self._places: Places | None = None
        self._suggested: set[Path] = set()
        self._mistyped: set[Path] = set()
        self._seen: set[tuple[str, Path]] = set()

    def explain(self, errors: Iterable[Any]) -> None:
        """Records all errors; a missing word that is only misspelt is recorded once, as unknown."""
        leaves = [leaf for error in errors for leaf in _leaves(error)]
        self._mistyped = {tuple(leaf.absolute_path) for leaf in leaves if leaf.validator == "type"}
        faulty = {tuple(leaf.absolute_path) for leaf in leaves if leaf.validator != "unevaluatedProperties"}
        missing = []
        for leaf in leaves:
            path = tuple(leaf.absolute_path)
            if leaf.validator == "required" or _is_entry_of_no_kind(leaf):
                missing.append(leaf)
            elif leaf.validator == "additionalProperties":
                self._unknown(leaf, path)
            elif leaf.validator == "unevaluatedProperties":
                # Where a part of a mapping is faulty, the library can't tell which of its words were looked at.
                if not any(fault[: len(path)] == path for fault in faulty):
                    self._unknown(leaf, path)
            else:
                self._fault(leaf, path)
        for leaf in missing:
            self._missing(leaf, tuple(leaf.absolute_path))

    def _add(self, path: Path, what: Message, fix: Message, see: str, location: Location | None = None) -> None:
        self._problems.add(dotted(path), what, fix, see, location)

    def _missing(self, error: Any, path: Path) -> None:
        if ("required", path) in self._seen:
            return
        self._seen.add(("required", path))
        names = error.validator_value
        if _is_entry_of_no_kind(error):
            suggested = any((*path, word) in self._suggested for word in STAGE_WORDS)
            names = [] if suggested else ["template"]
        for name in names:
            below = (*path, name)
            if name in error.instance or below in self._suggested:
                continue
            schema = error.schema.get("properties", {}).get(name, {})
            example = fixes.example_line(name, schema)
            if path:
                fix = msg("Add {example} under {place}", example=example, place=dotted(path))
            else:
                fix = msg("Add {example} at the top level", example=example)
            self._add(below, msg("is missing"), fix, "reference/errors.md#missing-key")

    def _unknown(self, error: Any, path: Path) -> None:
        properties = _words_here(error)
        patterns = error.schema.get("patternProperties", {})
        extras = [key for key in error.instance if key not in properties and not _matches(key, patterns)]
        for key in extras:
            if ("unknown", (*path, key)) in self._seen:
                continue
            self._seen.add(("unknown", (*path, key)))
            if not self._is_override_of_known_word(path, key):
                self._unknown_key(key, path, properties, error.instance)

    def _unknown_key(self, key: str, path: Path, properties: Mapping[str, Any], instance: Mapping[str, Any]) -> None:
        place = place_of(unnested(self._registry, path))
        what, see = msg("unknown key"), "reference/errors.md#unknown-key"
        kind, chosen = KINDS_BY_PLACE.get(place), instance.get("type", properties.get("type", {}).get("default"))
        if key.split(".")[0] in ("experimental", "future", "vendor"):
            what, see = msg("this is not a key of a reserved namespace"), "reference/errors.md#reserved-key"
            fix = msg("Type experimental.<name>, future.<name> or vendor.<vendor>.<name> as one key")
        elif kind and (owner := self._owner_of_block(kind, key)):
            see = "reference/errors.md#other-block"
            if owner == chosen and self._registry.get(kind, owner).schema is None:
                what = msg("{type} has no block: its words stand beside type", type=owner)
                fix = msg("Move the words of {key} to where {key} stands", key=key)
                within = instance[key] if isinstance(instance[key], Mapping) else {}
                self._suggested |= {(*path, word) for word in within}
            elif owner == chosen:
                block = self._registry.get(kind, owner).block_name
                what = msg("the block of {type} is called {block}", type=owner, block=block)
                fix = msg("Type {word} instead of {key}", word=block, key=key)
                self._suggested |= {(*path, block)}
            else:
                what = msg("only the block of the chosen type may stand here; the type is {type}", type=show(chosen))
                fix = msg("Delete {key}, or type 'type: {owner}'", key=key, owner=owner)
        elif len(self._problems.diagnostics) > MANY:
            fix = msg("Delete {key}; the words here are: {words}", key=key_text(key), words=one_of(properties))
        else:
            known = [word for word in properties if word not in instance] or list(properties)
            owners = self._places_of_words().get(key, {}).get(place)
            if owners:
                what = msg("{key} is a word of {owner}, not of {type}", key=key, owner=owners[0], type=show(chosen))
                fix = msg("Delete {key}, or type 'type: {owner}'", key=key, owner=owners[0])
            else:
                fix, meant = fix_unknown(key_text(key), place, known, self._places_of_words())
                self._suggested |= {(*path, meant)} if meant else set()
        self._add((*path, key), what, fix, see, self._locate_key((*path, key)))

    def _owner_of_block(self, kind: str, key: str) -> str | None:
        """The type whose block is called `key`, or that is called so itself; None where there is no such type."""
        for primitive in self._registry.primitives(kind):
            if key in (primitive.name, primitive.block_name):
                return primitive.name
        return key if package_of(kind, key) else None

    def _is_override_of_known_word(self, path: Path, key: str) -> bool:
        """Whether a template knows this word: then it is no misspelling, and compatibility says why it can't change."""
        if path[:1] != ("layer_schedule",) or "override" not in path:
            return False
        path = ("layer_schedule", 0, *path[path.index("override") :])
        template = "layer_templates.<name>"
        inner = {
            3: [template],
            4: [f"{template}.{path[-1]}", f"{template}.mixer.{path[-1]}"],
        }.get(len(path), [])
        places = self._places_of_words().get(key, ())
        return any(place in places for place in inner)

    def _places_of_words(self) -> Places:
        if self._places is None:
            self._places = places_of_words(self._schema)
        return self._places

    def _fault(self, error: Any, path: Path) -> None:
        if (error.validator, path) in self._seen:
            return
        if path in self._mistyped and error.validator != "type":
            return
        self._seen.add((error.validator, path))
        if "propertyNames" in error.absolute_schema_path:
            key = str(error.instance)
            what = msg("{name} can't be a name here", name=show(key))
            fix = msg("Use up to 100 letters, digits, and the signs _ . -")
            if error.validator_value == HELD_NAME:
                fix = msg("Use up to 100 letters, digits, and the sign _, and begin with no digit")
            self._add((*path, key), what, fix, "reference/errors.md#name", self._locate_key((*path, key)))
            return
        what, fix, see = _describe(error, str(path[-1]) if path and isinstance(path[-1], str) else "")
        if (
            error.validator == "type"
            and isinstance(error.instance, float)
            and isinstance(_value_at(self._raw, path), str)
        ):
            fix = msg("Make the result a whole number, for example with // instead of /")
        self._add(path, what, fix, see)


def _describe(error: Any, name: str) -> tuple[Message, Message, str]:
    """What is wrong with a value, what to type, and the page that explains it."""
    keyword, limit, value, schema = error.validator, error.validator_value, error.instance, error.schema
    shown = show(value)
    if keyword == "type":
        types = [limit] if isinstance(limit, str) else list(limit)
        return (
            *fixes.wrong_type(name, types, value, schema),
            "reference/errors.md#null" if value is None else "reference/errors.md#wrong-type",
        )
    if keyword in ("enum", "const"):
        choices = list(limit) if keyword == "enum" else [limit]
        return (*_choice(name, choices, value), "reference/errors.md#choice")
    bounds = {
        "minimum": (msg("must be at least {limit}, not {value}", limit=limit, value=shown),
                    msg("Type a value of at least {limit}", limit=limit)),
        "maximum": (msg("must be at most {limit}, not {value}", limit=limit, value=shown),
                    msg("Type a value of at most {limit}", limit=limit)),
        "exclusiveMinimum": (msg("must be greater than {limit}, not {value}", limit=limit, value=shown),
                             msg("Type a value greater than {limit}", limit=limit)),
        "exclusiveMaximum": (msg("must be less than {limit}, not {value}", limit=limit, value=shown),
                             msg("Type a value less than {limit}", limit=limit)),
        "multipleOf": (msg("must be a multiple of {limit}, not {value}", limit=limit, value=shown),
                       msg("Type a multiple of {limit}", limit=limit)),
        "minLength": (msg("needs at least {limit} characters", limit=limit),
                      msg("Type {example}", example=fixes.example_line(name, schema))),
        "maxLength": (msg("is longer than {limit} characters", limit=limit),
                      msg("Type at most {limit} characters", limit=limit)),
        "minItems": (msg("needs at least {limit} entries, not {count}", limit=limit, count=_size(value)),
                     msg("Add entries below {name}, each beginning with a dash", name=name)),
        "maxItems": (msg("takes at most {limit} entries, not {count}", limit=limit, count=_size(value)),
                     msg("Delete entries until {limit} are left", limit=limit)),
        "minProperties": (msg("needs at least {limit} entries, not {count}", limit=limit, count=_size(value)),
                          msg("Add an entry below {name}, indented", name=name)),
    }  # fmt: skip
    if keyword in bounds:
        return (*bounds[keyword], "reference/errors.md#range")
    what = msg("{value} is not allowed here: {reason}", value=shown, reason=str(error.message)[:200])
    fix = msg("Type {example}", example=fixes.example_line(name, schema))
    return what, fix, "reference/errors.md#not-allowed"


def _choice(name: str, choices: list[Any], value: Any) -> tuple[Message, Message]:
    texts = [fixes.scalar(choice) for choice in choices]
    if len(choices) == 1:
        what = msg("must be {choice}, not {value}", choice=texts[0], value=show(value))
        return what, msg("Type {example}", example=f"{name}: {texts[0]}" if name else texts[0])
    what = msg("must be one of {choices}, not {value}", choices=one_of(texts), value=show(value))
    words = [choice for choice in choices if isinstance(choice, str)]
    near = meant_value(value, words) if isinstance(value, str) else None
    if near:
        return what, msg("Type {example}", example=f"{name}: {near}" if name else near)
    return what, msg("Type one of: {choices}", choices=one_of(texts))


def _value_at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _words_here(error: Any) -> dict[str, Any]:
    """The words that the mapping takes as it stands: of a composed schema, those of the parts that apply."""
    if error.validator == "additionalProperties":
        return dict(error.schema.get("properties", {}))
    return {
        word: schema
        for rule in applicable(error.schema, error.instance)
        for word, schema in rule.get("properties", {}).items()
    }


def _is_entry_of_no_kind(error: Any) -> bool:
    """Whether what is wrong is that an entry of the schedule has none of the words that say what it is."""
    kinds = [{"required": [word]} for word in STAGE_WORDS]
    return error.validator == "anyOf" and list(error.validator_value) == kinds


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def _leaves(error: Any) -> Iterator[Any]:
    """The errors that say something: of alternatives, those of the one that was meant."""
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    branches: dict[Any, list[Any]] = {}
    for below in error.context:
        branches.setdefault(below.relative_schema_path[0], []).append(below)
    meant = [errors for errors in branches.values() if not any(_is_other_kind(below) for below in errors)]
    if len(meant) == 1:
        for below in meant[0]:
            yield from _leaves(below)
        return
    yield _merged(error)


def _is_other_kind(error: Any) -> bool:
    """Whether an alternative fails because the value, or its own `type` word, is of another kind altogether."""
    path = list(error.relative_path)
    return (not path and error.validator in ("type", "const", "enum")) or (
        path == ["type"] and error.validator in ("const", "enum")
    )


def _merged(error: Any) -> Any:
    """One error that says what all alternatives would take, where they are plain; the error itself otherwise."""
    parts = [part for part in error.validator_value if isinstance(part, Mapping)]
    if isinstance(error.instance, str) and any("const" in part or "enum" in part for part in parts):
        words = [word for part in parts for word in part.get("enum", [part["const"]] if "const" in part else [])]
        merged = type(error)(error.message, validator="enum", validator_value=words)
    else:
        types = [kind for part in parts for kind in _as_list(part.get("type", []))]
        if not types:
            return error
        merged = type(error)(error.message, validator="type", validator_value=list(dict.fromkeys(types)))
    merged.relative_path, merged.relative_schema_path = error.relative_path, error.relative_schema_path
    merged.parent, merged.instance, merged.schema = error.parent, error.instance, error.schema
    return merged


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
