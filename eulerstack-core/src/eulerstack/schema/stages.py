"""What the words of a schedule entry say together: an entry is a run of layers or one stage, never both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eulerstack.dsl.paths import Path, dotted
from eulerstack.dsl.source import Spec
from eulerstack.errors import Collector, msg
from eulerstack.schema.sections import STAGE_WORDS
from eulerstack.schema.words import one_of

SEE = "reference/errors.md#schedule-entry"


def check_entries(data: Spec, problems: Collector) -> None:
    """Records entries of two kinds at once, and words that the entry's kind does not have."""
    for path, entry in _entries(data):
        chosen = [word for word in STAGE_WORDS if word in entry]
        for other in chosen[1:]:
            problems.add(
                dotted((*path, other)),
                msg("an entry has either {first} or {second}", first=chosen[0], second=other),
                msg("Make two entries of it, or delete one of these words"),
                SEE,
                data.locate_key((*path, other)),
            )
        if len(chosen) != 1:
            continue
        for kind, words in STAGE_WORDS.items():
            for word in words:
                if kind != chosen[0] and word in entry:
                    problems.add(
                        dotted((*path, word)),
                        msg("{word} belongs to an entry with {kind}, not to one with {chosen}", word=word, kind=kind,
                            chosen=chosen[0]),
                        msg("Delete {word}; such an entry has only: {words}", word=word,
                            words=one_of((chosen[0], *STAGE_WORDS[chosen[0]]))),
                        SEE,
                        data.locate_key((*path, word)),
                    )  # fmt: skip


def _entries(data: Spec) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    schedule = data.get("layer_schedule")
    for index, entry in enumerate(schedule if isinstance(schedule, list) else ()):
        if isinstance(entry, Mapping):
            yield ("layer_schedule", index), entry


def scheduled_layers(entry: Mapping[str, Any]) -> int:
    """The layers that an entry makes at most, as far as its structure tells; what is no number counts as none."""
    stage = entry.get("integrator")
    number = stage.get("steps") if isinstance(stage, Mapping) else entry.get("repeat", 1)
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def scheduled_templates(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path within the entry, name) of every template that a structurally valid entry refers to."""
    if "template" in entry:
        yield "template", entry["template"]
    if "integrator" in entry:
        yield "integrator.body", entry["integrator"]["body"]
