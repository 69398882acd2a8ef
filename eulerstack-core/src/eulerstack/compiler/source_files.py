"""Source files of exported models, read and split into their top-level statements. Nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from eulerstack.errors import CompileError, Diagnostic, msg

# The annotation of tables of which an export holds what the spec names.
TABLE = "ByName"


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


@cache
def parse_module(name: str, own_packages: frozenset[str]) -> SourceModule:
    """Reads and splits a module's source file."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise broken(name, "can't be found")
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


@cache
def parse_docstring(module_name: str) -> str:
    """A module's docstring."""
    spec = importlib.util.find_spec(module_name)
    assert spec is not None and spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def _read_import(module: SourceModule, node: ast.Import | ast.ImportFrom, own_packages: frozenset[str]) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] in own_packages:
                raise broken(module.name, f"must import names from {alias.name}, not the module")
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
                raise broken(module.name, f"must import {alias.name} under its own name")
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
    raise broken(module, f"has in line {node.lineno} neither a definition nor an assignment of one name")


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
    return broken(module, f"has a {TABLE} table in line {node.lineno} that is not one text and value a line")


def _read_names(node: ast.AST) -> frozenset[str]:
    """Every name that occurs in a statement, those in quoted annotations included."""
    return frozenset(child.id for child in ast.walk(node) if isinstance(child, ast.Name))


def broken(module: str, reason: str) -> CompileError:
    """The error for a source file that breaks the discipline of exported modules."""
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
