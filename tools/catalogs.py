"""Message catalogs: `update` after changing a sentence, fill in the .po files, `compile`; `check` says what is left.

    python tools/catalogs.py update|compile|check

Sentences come from calls of `msg` and `_` in our packages, from the descriptions and summaries that declarations give
their words, and from what the headers of presets say. Babel does the reading and writing.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "eulerstack-core/src/eulerstack/i18n/locale"
SOURCES = (
    "eulerstack-core/src",
    "eulerstack-mixers/src",
    "eulerstack-plugins/ode/src",
    "eulerstack-plugins/titans/src",
    "eulerstack-plugins/ttt/src",
    "presets/eulerstack_presets",
)
LANGUAGES = ("ko", "en", "zh", "ja", "es")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
# What reads the same in every language: commands, code, numbers, names of file formats.
SAME_EVERYWHERE = re.compile(
    r"eulerstack\b.*|pip install\b.*|.*--help|VALUE|Kernel|use|layernorm|rmsnorm|qk_norm|null|:|\W*",
)


def extract() -> dict[str, set[str]]:
    """Every sentence and the files that it stands in."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        keywords = {"msg": None, "_": None}
        for file, _line, sentence, _comments, _context in extract_from_dir(ROOT / source, keywords=keywords):
            assert isinstance(sentence, str), f"{source}/{file}: {sentence!r}"
            found.setdefault(sentence, set()).add(f"{source}/{file}")
    for name, sentence in declared():
        found.setdefault(sentence, set()).add(name)
    return found


def declared() -> Iterator[tuple[str, str]]:
    """(where, sentence) of every description in the language's schema and every primitive's summary."""
    from eulerstack.i18n import activate
    from eulerstack.plugins.manager import Registry
    from eulerstack.plugins.sources import installed_sources
    from eulerstack.schema.assemble import assemble

    activate("en")
    # Packages with catalogs of their own, eulerstack-tensor among them, are none of this one's business.
    registry = Registry(source for source in installed_sources() if source.own)
    broken = [record for record in registry.records() if record.own and record.state not in ("ok", "disabled")]
    assert not broken, broken
    yield from (("schema", text) for text in _descriptions(assemble(registry)))
    yield from _headers()
    for primitive in registry.primitives():
        where = primitive.module.partition(":")[0].replace(".modules.", ".declarations.")
        yield where, primitive.summary
        for schema in (primitive.schema, {"properties": primitive.inline}):
            yield from ((where, text) for text in _descriptions(schema))


def _headers() -> Iterator[tuple[str, str]]:
    """(file, sentence) of what the presets are and teach."""
    from eulerstack.preset_headers import read_header

    for file in sorted((ROOT / "presets/eulerstack_presets").glob("*.yml")):
        header = read_header(file)
        yield from ((file.relative_to(ROOT).as_posix(), text) for text in (header.summary, header.lesson))


def _descriptions(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "description" and isinstance(value, str):
                yield value
            elif key not in ("default", "enum", "const"):
                yield from _descriptions(value)
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            yield from _descriptions(value)


class Dateless(Catalog):
    """A catalog whose header holds only what readers need: no dates, tools or people, which change when nothing has."""

    mime_headers = property(lambda self: [("Content-Type", "text/plain; charset=utf-8")], lambda self, headers: None)
    header_comment = property(
        lambda self: f"# {self.locale_identifier}: messages of EulerStack", lambda self, comment: None
    )


def path(language: str, suffix: str = "po") -> Path:
    """The catalog of a language."""
    return LOCALE / language / "LC_MESSAGES" / f"eulerstack.{suffix}"


def read(language: str) -> Catalog:
    """The catalog as it stands on disk; an empty one where there is none."""
    catalog = Dateless(locale=language, fuzzy=False)
    if path(language).exists():
        with open(path(language), "rb") as file:
            for message in read_po(file, locale=language):
                if message.id:
                    catalog[message.id] = message
    return catalog


def updated(language: str) -> Catalog:
    """The catalog with exactly today's sentences, keeping the translations that it has."""
    old = read(language)
    new = Dateless(locale=language, fuzzy=False)
    for sentence, places in sorted(extract().items()):
        known = old.get(sentence)
        translation = sentence if language == "en" else known.string if known else ""
        new.add(sentence, translation, locations=[(place, 0) for place in sorted(places)])
    return new


def po_text(catalog: Catalog) -> bytes:
    """A catalog as a .po file, without line numbers, which change when no sentence has."""
    buffer = io.BytesIO()
    write_po(buffer, catalog, width=120, sort_output=True, include_lineno=False, ignore_obsolete=True)
    return buffer.getvalue()


def mo_bytes(catalog: Catalog) -> bytes:
    """A catalog as a .mo file."""
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def problems(language: str, messages: Catalog, sentences: Mapping[str, Any]) -> Iterator[str]:
    """What is missing, stale or wrong in one catalog."""
    present = {str(message.id): message for message in messages if message.id}
    yield from (f"{language}: missing: {sentence!r}" for sentence in sentences if sentence not in present)
    yield from (f"{language}: stale: {sentence!r}" for sentence in present if sentence not in sentences)
    for sentence, message in present.items():
        for problem in _wrong(language, sentence, message):
            yield f"{language}: {problem}: {sentence!r} -> {message.string!r}"


def _wrong(language: str, sentence: str, message: Message) -> Iterator[str]:
    text = str(message.string)
    if not text:
        yield "not translated"
        return
    if message.fuzzy:
        yield "fuzzy"
    if sorted(PLACEHOLDER.findall(sentence)) != sorted(PLACEHOLDER.findall(text)):
        yield "other placeholders"
    if language == "en":
        if text != sentence:
            yield "differs from its key"
        return
    scripts = {unicodedata.name(each, "").split()[0] for each in text if each.isalpha()}
    allowed = {"ko": {"HANGUL"}, "zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA"}, "es": set()}[language]
    if scripts & ({"HANGUL", "CJK", "HIRAGANA", "KATAKANA"} - allowed):
        yield "wrong script"
    if SAME_EVERYWHERE.fullmatch(PLACEHOLDER.sub("", sentence).strip()):
        return
    if allowed and not scripts & allowed:
        yield "not in its script"
    if language == "es" and text == sentence:
        yield "still English"


def main(command: str) -> int:
    """Runs one command; `check` fails when a catalog is not in order."""
    if command == "update":
        for language in LANGUAGES:
            catalog = updated(language)
            path(language).parent.mkdir(parents=True, exist_ok=True)
            path(language).write_bytes(po_text(catalog))
            left = sum(1 for message in catalog if message.id and not message.string)
            print(f"{language}: {len(catalog)} sentences, {left} to translate")
    elif command == "compile":
        for language in LANGUAGES:
            path(language, "mo").write_bytes(mo_bytes(read(language)))
    elif command == "check":
        sentences = extract()
        found = [problem for language in LANGUAGES for problem in problems(language, read(language), sentences)]
        found += [f"{name}: compile it" for name in LANGUAGES if path(name, "mo").read_bytes() != mo_bytes(read(name))]
        print(*found, sep="\n")
        return 1 if found else 0
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
