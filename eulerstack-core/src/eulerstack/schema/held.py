"""Where a spec writes primitives that another primitive holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.dsl.paths import Path, is_reserved


def held_mappings(registry: Any, kind: str, given: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """What `given`, which names a primitive, writes for those that it holds: the path below `given`, the mapping."""
    name = given.get("type")
    if not isinstance(name, str) or name not in registry.names(kind):
        return
    primitive = registry.get(kind, name)
    block = given.get(primitive.block_name)
    if primitive.holds is None or not isinstance(block, Mapping):
        return
    held = block.get(primitive.holds.word)
    for key, each in held.items() if isinstance(held, Mapping) else ():
        if isinstance(each, Mapping) and not is_reserved(str(key)):
            yield (primitive.block_name, primitive.holds.word, key), each


def holds_others(registry: Any, kind: str, given: Mapping[str, Any]) -> bool:
    """Whether what `given` names holds primitives itself, so that no other may hold it."""
    return given["type"] in registry.names(kind) and registry.get(kind, given["type"]).holds is not None


def unnested(registry: Any, path: Path) -> Path:
    """`path`, but what a template's mixer holds as though it were the template's mixer itself."""
    if len(path) < 6 or path[0] != "layer_templates" or path[2] != "mixer":
        return path
    holders = {
        (primitive.block_name, primitive.holds.word)
        for primitive in registry.primitives("mixer")
        if primitive.holds is not None
    }
    return (*path[:3], *path[6:]) if path[3:5] in holders else path
