"""What the words of a schedule entry say together: an entry is a run of layers or one stage, never both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eulerstack.dsl.paths import Path, dotted
from eulerstack.dsl.source import Spec
from eulerstack.errors import Collector, msg
from eulerstack.plugins.primitive import Kind
from eulerstack.schema.sections import MAX_LAYERS, STAGE_WORDS
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


def check_streams(data: Spec, problems: Collector) -> None:
    """Records streams of one stage that bear the same name, and a parallel stage that says nothing of its merge."""
    for path, entry in _entries(data):
        streams = entry.get("parallel")
        if "parallel" in entry and "merge" not in entry and len([word for word in STAGE_WORDS if word in entry]) == 1:
            problems.add(
                dotted((*path, "merge")),
                msg("is missing"),
                msg("Add {example} under {place}", example="merge: {type: concat}", place=dotted(path)),
                "reference/errors.md#missing-key",
            )
        seen: set[str] = set()
        for index, stream in enumerate(streams if isinstance(streams, list) else ()):
            name = stream.get("stream") if isinstance(stream, Mapping) else None
            if isinstance(name, str) and name in seen:
                problems.add(
                    dotted((*path, "parallel", index, "stream")),
                    msg("there are two streams called {name}", name=name),
                    msg("Give each stream of a stage a name of its own"),
                    SEE,
                )
            elif isinstance(name, str):
                seen.add(name)


def scheduled_layers(entry: Mapping[str, Any]) -> int:
    """The layers that an entry makes at most, as far as its structure tells; what is no number counts as none."""
    streams = entry.get("parallel")
    if isinstance(streams, list):
        bodies = [stream.get("body") for stream in streams if isinstance(stream, Mapping)]
        runs = [run for body in bodies if isinstance(body, list) for run in body if isinstance(run, Mapping)]
        counts = [scheduled_layers(run) for run in runs if "parallel" not in run]
        # What is out of range by itself is reported there.
        return sum(count for count in counts if 0 < count <= MAX_LAYERS)
    stage = entry.get("integrator")
    number = stage.get("steps") if isinstance(stage, Mapping) else entry.get("repeat", 1)
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def runs_of_layers(schedule: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """(path, entry, whether it ends the schedule) of every run of layers, those in streams too, of a valid schedule."""
    for index, entry in enumerate(schedule):
        path = f"layer_schedule[{index}]"
        if "template" in entry:
            yield path, entry, index == len(schedule) - 1
        for place, stream in enumerate(entry.get("parallel", ())):
            for line, run in enumerate(stream["body"]):
                yield f"{path}.parallel[{place}].body[{line}]", run, False


def typed_stages(
    schedule: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Kind, Mapping[str, Any], tuple[str, ...]]]:
    """(path, kind, mapping, names of the streams) of everything in a valid schedule that chooses a type."""
    for index, entry in enumerate(schedule):
        kinds: tuple[Kind, ...] = ("integrator", "merge")
        streams = tuple(stream["stream"] for stream in entry.get("parallel", ()))
        for kind in kinds:
            if kind in entry:
                yield f"layer_schedule[{index}].{kind}", kind, entry[kind], streams


def scheduled_templates(schedule: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(path, name) of every template that a valid schedule refers to, in order."""
    for index, entry in enumerate(schedule):
        path = f"layer_schedule[{index}]"
        if "integrator" in entry:
            yield f"{path}.integrator.body", entry["integrator"]["body"]
        elif "parallel" in entry:
            for place, stream in enumerate(entry["parallel"]):
                for line, run in enumerate(stream["body"]):
                    yield f"{path}.parallel[{place}].body[{line}].template", run["template"]
        else:
            yield f"{path}.template", entry["template"]
