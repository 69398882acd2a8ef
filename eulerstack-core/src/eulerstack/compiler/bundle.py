"""Joins the model's source files into one `modeling_eulerstack.py` that needs only torch and transformers.

Starting from the skeleton and the primitives that a spec uses, every top-level definition that is reached is copied as
it stands, comments included, each file after those it imports from; imports between our files disappear, all others
move to the top. Nothing that is not reached is copied, and of a table that is annotated `ByName` only the lines whose
key is among the words that the spec says. Torch-free: sources are read, never imported.

The files must keep to a discipline, checked here: `from package.module import Name` between files (no aliases), no two
definitions of the same name, and at the top level nothing but imports, definitions, assignments of one name each, and
calls or assignments to parts of objects that register something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from eulerstack.compiler.source_files import Item, SourceModule, broken, parse_docstring, parse_module

SKELETON = "eulerstack.hf.modeling"
ROOTS = ("EulerStackForCausalLM", "EulerStackModel", "EulerStackConfig")
# Replaced by the table of primitives at the end of the bundle.
REGISTRY_MODULE = "eulerstack.hf.primitives"


def bundle(
    classes: Mapping[tuple[str, str, str], str], words: frozenset[str], header: str, packages: Iterable[str] = ()
) -> str:
    """The text of `modeling_eulerstack.py` for a model that uses `classes`.

    `classes` maps (kind, type, variant) to "package.module:Class"; `words` are those by which tables are chosen from.
    `packages` hold modules too, which those of other packages may import: their source is carried along.

    Errors: CompileError when a source file breaks the discipline above.
    """
    targets = {key: path.partition(":")[::2] for key, path in sorted(classes.items())}
    own_packages = frozenset({"eulerstack", *packages, *(module.split(".")[0] for module, _ in targets.values())})
    walk = _Walk(own_packages, words)
    for module, name in targets.values():
        walk.reach(module, name)
    for root in ROOTS:
        walk.reach(SKELETON, root)
    table = "".join(
        f'    ("{kind}", "{name}", "{variant}"): {class_name},\n'
        for (kind, name, variant), (_, class_name) in targets.items()
    )
    if '"' in header or "\\" in header:
        raise ValueError("the header of a generated file may hold no quotes and no backslashes")
    parts = [f'"""{header}"""', "\n".join(_import_lines(walk.imports))]
    for module, items in walk.in_order():
        parts += [_section(module), *(item.source_for(words) for item in items)]
    parts.append(
        "# Which class computes each primitive of this model.\n"
        f"PRIMITIVES = {{\n{table}}}\n\n\n"
        "def primitive_class(kind, node):\n"
        '    """The class that computes a node of the architecture."""\n'
        '    return PRIMITIVES[kind, node["type"], node.get("class", "")]'
    )
    return "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"


class _Walk:
    """Collects the definitions that are reached, and the imports they need."""

    def __init__(self, own_packages: frozenset[str], words: frozenset[str]):
        self.own_packages = own_packages
        self.words = words
        self.imports: dict[str, str] = {}
        self._reached: dict[str, set[int]] = {}
        self._owner: dict[str, str] = {}

    def reach(self, module_name: str, name: str) -> None:
        """Adds the definition of `name` and everything that it needs."""
        if module_name == REGISTRY_MODULE:
            return
        module = parse_module(module_name, self.own_packages)
        item = module.item_of(name)
        if item is not None:
            self._add(module, item)
        elif name in module.internal:
            self.reach(module.internal[name], name)
        else:
            raise broken(module_name, f"defines no {name}")

    def _add(self, module: SourceModule, item: Item) -> None:
        reached = self._reached.setdefault(module.name, set())
        if id(item) in reached:
            return
        reached.add(id(item))
        for bound in item.binds:
            if self._owner.setdefault(bound, module.name) != module.name or bound in self.imports:
                raise broken(module.name, f"defines {bound}, which is taken already")
        for read in sorted(item.reads_for(self.words)):
            if module.item_of(read) is not None or read in module.internal:
                self.reach(module.name, read)
            elif read in module.external:
                statement = module.external[read]
                if self.imports.setdefault(read, statement) != statement or read in self._owner:
                    raise broken(module.name, f"imports {read} from another place than the files before it")
        # Statements that bind nothing (registrations) belong to the definitions that they are about.
        for other in module.items:
            if not other.binds and set(item.binds) & other.reads:
                self._add(module, other)

    def in_order(self) -> Iterator[tuple[str, list[Item]]]:
        """Modules after those they import from, with their reached definitions in the order of the file."""
        done: set[str] = set()

        def visit(name: str) -> Iterator[tuple[str, list[Item]]]:
            if name in done or name not in self._reached:
                return
            done.add(name)
            module = parse_module(name, self.own_packages)
            for source in sorted(set(module.internal.values())):
                yield from visit(source)
            yield name, [item for item in module.items if id(item) in self._reached[name]]

        for name in sorted(self._reached, key=lambda name: (name.startswith("eulerstack.hf."), name)):
            yield from visit(name)


def _import_lines(imports: dict[str, str]) -> list[str]:
    """Import statements, `from` ones merged by module, sorted."""
    plain = sorted({line for line in imports.values() if line.startswith("import ")})
    merged: dict[str, list[str]] = {}
    for line in sorted({line for line in imports.values() if line.startswith("from ")}):
        source, _, name = line.removeprefix("from ").partition(" import ")
        merged.setdefault(source, []).append(name)
    lines = []
    for source, names in sorted(merged.items()):
        line = f"from {source} import {', '.join(names)}"
        if len(line) > 120:
            line = f"from {source} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
        lines.append(line)
    return [*plain, *lines]


def _section(module_name: str) -> str:
    docstring = parse_docstring(module_name)
    body = "\n".join(f"# {line}".rstrip() for line in docstring.splitlines())
    return f"# From {module_name}\n#\n{body}"
