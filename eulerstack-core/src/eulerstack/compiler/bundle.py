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

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from eulerstack.errors import CompileError, Diagnostic, msg

SKELETON = "eulerstack.hf.modeling"
ROOTS = ("EulerStackForCausalLM", "EulerStackModel", "EulerStackConfig")
# The annotation of tables of which an export holds what the spec names.
TABLE = "ByName"
# Replaced by the table of primitives at the end of the bundle.
REGISTRY_MODULE = "eulerstack.hf.primitives"


@dataclass
class Item:
    """A top-level statement: the names it binds, the names it reads, its source with the comments above it.

    `lines` are those of a `ByName` table, by their keys; its source and what it reads are then without them.
    """

    module: str
    binds: tuple[str, ...]
    reads: frozenset[str]
    source: str
    lines: Mapping[str, tuple[frozenset[str], str]] | None = None

    def reads_for(self, words: frozenset[str]) -> frozenset[str]:
        """The names that it reads where a spec says `words`."""
        return self.reads.union(*(reads for key, (reads, _) in (self.lines or {}).items() if key in words))

    def source_for(self, words: frozenset[str]) -> str:
        """Its source where a spec says `words`."""
        if self.lines is None:
            return self.source
        kept = [line for key, (_, line) in self.lines.items() if key in words]
        return "\n".join([f"{self.source}{{", *kept, "}"]) if kept else f"{self.source}{{}}"


@dataclass
class SourceModule:
    """A parsed file: its docstring, its definitions, where names come from."""

    name: str
    docstring: str
    items: list[Item] = field(default_factory=list)
    internal: dict[str, str] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)

    def item_of(self, name: str) -> Item | None:
        """The statement that binds `name`."""
        return next((item for item in self.items if name in item.binds), None)


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
            raise _broken(module_name, f"defines no {name}")

    def _add(self, module: SourceModule, item: Item) -> None:
        reached = self._reached.setdefault(module.name, set())
        if id(item) in reached:
            return
        reached.add(id(item))
        for bound in item.binds:
            if self._owner.setdefault(bound, module.name) != module.name or bound in self.imports:
                raise _broken(module.name, f"defines {bound}, which is taken already")
        for read in sorted(item.reads_for(self.words)):
            if module.item_of(read) is not None or read in module.internal:
                self.reach(module.name, read)
            elif read in module.external:
                statement = module.external[read]
                if self.imports.setdefault(read, statement) != statement or read in self._owner:
                    raise _broken(module.name, f"imports {read} from another place than the files before it")
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


@cache
def parse_module(name: str, own_packages: frozenset[str]) -> SourceModule:
    """Reads and splits a module's source file."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise _broken(name, "can't be found")
    text = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines()
    module = SourceModule(name, ast.get_docstring(tree) or "")
    previous_end = 0
    for index, node in enumerate(tree.body):
        end = node.end_lineno or node.lineno
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _read_import(module, node, own_packages)
        elif not (index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
            while start > previous_end and lines[start - 1].startswith("#"):
                start -= 1
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == TABLE:
                module.items.append(_table(name, node, lines, start, tree))
            else:
                source = "\n".join(lines[start:end])
                module.items.append(Item(name, _bound_names(name, node), _read_names(node), source))
        previous_end = end
    return module


def _read_import(module: SourceModule, node: ast.Import | ast.ImportFrom, own_packages: frozenset[str]) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] in own_packages:
                raise _broken(module.name, f"must import names from {alias.name}, not the module")
            suffix = f" as {alias.asname}" if alias.asname else ""
            module.external[alias.asname or alias.name.split(".")[0]] = f"import {alias.name}{suffix}"
        return
    source = node.module or ""
    if node.level:
        package = module.name.rsplit(".", node.level)[0]
        source = f"{package}.{source}" if source else package
    if source == "__future__":
        return
    for alias in node.names:
        if source.split(".")[0] in own_packages:
            if alias.asname:
                raise _broken(module.name, f"must import {alias.name} under its own name")
            module.internal[alias.name] = source
        else:
            suffix = f" as {alias.asname}" if alias.asname else ""
            module.external[alias.asname or alias.name] = f"from {source} import {alias.name}{suffix}"


def _bound_names(module: str, node: ast.stmt) -> tuple[str, ...]:
    """The one name that a statement binds; none for a registration."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, ast.Expr) and not any(isinstance(child, ast.NamedExpr) for child in ast.walk(node)):
        return ()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if len(targets) == 1 and isinstance(targets[0], ast.Name):
        return (targets[0].id,)
    if len(targets) == 1 and isinstance(targets[0], (ast.Subscript, ast.Attribute)):
        return ()
    raise _broken(module, f"has in line {node.lineno} neither a definition nor an assignment of one name")


def _table(module: str, node: ast.AnnAssign, lines: list[str], start: int, tree: ast.Module) -> Item:
    """A `ByName` table, one line or more for each key."""
    constants = {
        statement.targets[0].id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.Constant)
    }
    written = node.value if isinstance(node.value, ast.Dict) else ast.Dict([], [])
    starts: dict[str, int] = {}
    last = node.lineno
    for key, value in zip(written.keys, written.values, strict=True):
        word = constants.get(key.id) if isinstance(key, ast.Name) else getattr(key, "value", None)
        if key is None or not isinstance(word, str) or key.lineno <= last:
            raise _no_table(module, node)
        starts[word] = key.lineno - 1
        while lines[starts[word] - 1].lstrip().startswith("#"):
            starts[word] -= 1
        last = value.end_lineno or key.lineno
    end = node.end_lineno or 0
    if not starts or not isinstance(node.target, ast.Name) or end <= last:
        raise _no_table(module, node)
    ends = [*list(starts.values())[1:], end - 1]
    found = {
        word: (_read_names(key) | _read_names(value), "\n".join(lines[starts[word] : stop]))
        for word, key, value, stop in zip(starts, written.keys, written.values, ends, strict=True)
        if key is not None
    }
    head = "\n".join(lines[start : node.lineno - 1] + [f"{node.target.id}: {TABLE} = "])
    return Item(module, (node.target.id,), frozenset({TABLE}), head, found)


def _no_table(module: str, node: ast.AnnAssign) -> CompileError:
    return _broken(module, f"has a {TABLE} table in line {node.lineno} that is not one text and value a line")


def _read_names(node: ast.AST) -> frozenset[str]:
    """Every name that occurs in a statement, those in quoted annotations included."""
    return frozenset(child.id for child in ast.walk(node) if isinstance(child, ast.Name))


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


@cache
def parse_docstring(module_name: str) -> str:
    """A module's docstring."""
    spec = importlib.util.find_spec(module_name)
    assert spec is not None and spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def _broken(module: str, reason: str) -> CompileError:
    return CompileError(
        [
            Diagnostic(
                "CompileError",
                msg("the source of {module} can't be joined into one file: it {reason}", module=module, reason=reason),
                msg("keep to the rules for modules of exported primitives"),
                "writing-a-plugin.md#the-module",
            )
        ]
    )
