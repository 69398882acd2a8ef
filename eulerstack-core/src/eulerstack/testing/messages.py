"""Every message of a package is translated into all languages, its placeholders with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from gettext import GNUTranslations
from importlib.util import find_spec
from pathlib import Path

from eulerstack.i18n import DOMAIN, LANGUAGES, LOCALE
from eulerstack.plugins.manager import get_registry
from eulerstack.plugins.sources import installed_sources
from eulerstack.testing.claims import DoesNotApply, Package

PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def check_messages(package: Package) -> None:
    """Every message is translated into all languages."""
    sources = [source for source in installed_sources() if source.package == package.name]
    own = all(source.own for source in sources)
    found = sorted({entry for source in sources for entry in messages_of(source.target)})
    if not found:
        raise DoesNotApply("it has no messages")
    registry = get_registry()
    folders = {
        catalog.domain: Path(catalog.folder)
        for catalog in registry.catalogs()
        if registry.provider(catalog)[0] == package.name
    }
    if own:
        folders[DOMAIN] = LOCALE
    for domain, sentence, place in found:
        assert domain in folders, (
            f"{place}: {sentence!r} is looked up in the catalog {domain!r}, which is not the package's own; its own "
            f"are {', '.join(sorted(folders)) or 'none'}; Message(…, domain=…) names one"
        )
    wrong = [
        f"{language}: {problem}: {sentence!r} ({place})"
        for language in LANGUAGES
        if language != "en"
        for domain, sentence, place in found
        if (problem := _problem(_catalog(folders[domain], language, domain), sentence))
    ]
    assert not wrong, "\n".join(wrong)


def messages_of(target: str) -> Iterator[tuple[str, str, str]]:
    """(domain, sentence, place) of every message in the package that a plugin's module lies in."""
    package = find_spec(target.partition(":")[0].partition(".")[0])
    if package is None or package.origin is None:
        return
    root = Path(package.origin)
    files = sorted(root.parent.rglob("*.py")) if package.submodule_search_locations else [root]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Message", "msg"):
                yield from _message(node, f"{file.name}:{node.lineno}")


def _message(node: ast.Call, place: str) -> Iterator[tuple[str, str, str]]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if not node.args or not isinstance(node.args[0], ast.Constant):
        return
    domain: ast.expr | None = node.args[2] if name == "Message" and len(node.args) > 2 else None
    if name == "Message":
        domain = next((word.value for word in node.keywords if word.arg == "domain"), domain)
    yield (str(domain.value) if isinstance(domain, ast.Constant) else DOMAIN), str(node.args[0].value), place


def _catalog(folder: Path, language: str, domain: str) -> GNUTranslations | None:
    try:
        with open(folder / language / "LC_MESSAGES" / f"{domain}.mo", "rb") as file:
            return GNUTranslations(file)
    except (OSError, ValueError):
        return None


def _problem(catalog: GNUTranslations | None, sentence: str) -> str:
    if catalog is None:
        return "no catalog"
    text = catalog.gettext(sentence)
    if text == sentence and any(each.isalpha() for each in PLACEHOLDER.sub("", sentence)):
        return "not translated"
    if sorted(PLACEHOLDER.findall(text)) != sorted(PLACEHOLDER.findall(sentence)):
        return "other placeholders"
    return ""
