"""What `presets show` prints: the header's paragraphs, the stack as a picture with bars to scale, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from eulerstack.cli.terminal import cells, columns, long_count, say, say_pairs, short_bytes, short_count, styled, wrap
from eulerstack.i18n import gettext as _
from eulerstack.i18n import translator
from eulerstack.preset_headers import Header

BLOCKS = " ▏▎▍▌▋▊▉█"
LONGEST_PATTERN = 16


@dataclass(frozen=True)
class Line:
    """A line of the picture: the layers that it stands for, what they are, and the parameters of all of them.

    `border` is the piece of a bracket around lines that come several times.
    """

    layers: str
    text: str
    params: int
    border: str = " "


def show(reference: str, header: Header, data: Mapping[str, Any]) -> None:
    """Prints everything about one preset but its file."""
    width = min(columns(), 110)
    say(styled(reference, "bold"))
    for line in wrap(in_language(header.summary), width - 2):
        say(f"  {line}".rstrip())
    facts = [
        (_("Teaches"), taught(header)),
        (_("Source"), header.source),
        (_("Tier"), tier_of(header)),
        (_("Level"), header.level),
    ]
    say()
    say_pairs([(label, text) for label, text in facts if text])
    say()
    for line in picture(data, width):
        say(line)
    say()
    say_pairs(_figures(data))
    say()
    # Commands stand in one line each, so that they can be copied.
    commands = [(_("Details"), f"explain --preset {reference}"), (_("File"), f"presets show {reference} --yaml")]
    widest = max(cells(label) for label, _command in commands)
    for label, command in commands:
        say(f"  {styled(label, 'name')}{' ' * (widest - cells(label))}  eulerstack {command}")


def in_language(text: str) -> str:
    """A sentence of a header in the active language where there is a translation."""
    return translator()(text) if text else ""


def taught(header: Header) -> str:
    """What a header teaches, in the active language where there is a translation."""
    text = in_language(header.lesson)
    if header.touched is None:
        return text
    total, active = header.touched
    sentence = _("Of {total} parameters a token touches {active}.").format(total=total, active=active)
    # A full stop of full width brings its own space.
    between = "" if text.endswith("。") else " "
    return f"{text}{between}{sentence}".strip()


def tier_of(header: Header) -> str:
    """The tier's number and name."""
    names = {
        1: _("1, validated industrial practice"),
        2: _("2, recent hybrids, experts and long contexts"),
        3: _("3, experimental primitives"),
    }
    return names.get(header.tier or 0, "")


def place(header: Header) -> str:
    """Tier and level in a few words; nothing where the header doesn't say them."""
    if header.tier is None:
        return ""
    return _("tier {tier}, {level}").format(tier=header.tier, level=header.level)


def _figures(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, params, cache = data["model"], data["params"], data["cache_bytes"]
    sizes = _("{layers} layers of width {width}, context {context}").format(
        layers=data["total_layers"], width=model["d_model"], context=model["max_seq_len"]
    )
    per_token = _("{flops} at a context of {length}").format(
        flops=short_count(data["flops_per_token"], "G"), length=data["context"]
    )
    kept = _("{full} at {length} tokens").format(full=short_bytes(cache["at_context"]), length=data["context"])
    figures = [(_("Sizes"), sizes), (_("Estimated params"), long_count(params["total"]))]
    if params["active"] != params["total"]:
        figures.append((_("Active params"), long_count(params["active"])))
    return [
        *figures,
        (_("Weights"), f"{short_bytes(data['weight_bytes'])}, {model['dtype']}"),
        (_("FLOPs per token"), per_token),
        (_("Cache"), kept),
    ]


def picture(data: Mapping[str, Any], width: int) -> list[str]:
    """The stack from the embedding down to the head, a bar of parameters beside each run of layers.

    Runs that come again and again stand once, in a bracket that says how often; bars are to one scale.
    """
    steps = _steps(data)
    lines = [Line("", f"embedding · {data['positional']['type']}", data["params"]["embedding"])]
    start = 0
    for length, times in folded([step.text for step in steps]):
        pattern = steps[start : start + length]
        lines += [
            replace(line, border=" " if times == 1 else "│" if number else "┌")
            for number, line in enumerate(_runs(pattern))
        ]
        start += length * times
        if times > 1:
            last = steps[start - 1].layers
            lines.append(Line("", _("{times} times, up to layer {last}").format(times=times, last=last), 0, "└"))
    tied = " · tie_weights" if data["head"]["tie_weights"] else ""
    rest = data["params"]["total"] - data["params"]["embedding"] - sum(step.params for step in steps)
    lines.append(Line("", f"{data['head']['type']}{tied}", rest))
    return list(_drawn(lines, width))


def _steps(data: Mapping[str, Any]) -> list[Line]:
    """A line for every layer, and one after each stage that has parameters of its own."""
    named = len(data["templates"]) > 1
    steps = [
        ((layer, 0), Line(str(layer), described(group, named), group["params"]))
        for group in data["layers"]
        for layer in range(group["first"], group["last"] + 1)
    ]
    steps += [
        ((stage["last"], 1), Line(str(stage["last"]), f"{stage['word']} · {stage['type']}", stage["params"]))
        for stage in data["stages"]
        if stage["params"]
    ]
    return [line for _place, line in sorted(steps, key=lambda step: step[0])]


def _runs(steps: Sequence[Line]) -> Iterator[Line]:
    """Equal lines in a row as one."""
    for text, run in groupby(steps, key=lambda step: step.text):
        equal = list(run)
        ends = dict.fromkeys((equal[0].layers, equal[-1].layers))
        yield Line("–".join(ends), text, sum(step.params for step in equal))


def described(group: Mapping[str, Any], named: bool) -> str:
    """A layer in a few words: its template where there are several, mixer, block, and what stands around them."""
    parts = [group["mixer"]]
    if group["ffn"] != "none":
        parts.append(group["ffn"])
    if group["memory"]:
        parts.append(group["memory"])
    if group["residual"] not in ("sequential", "parallel"):
        parts.append(group["residual"])
    if group["depth_gating"]:
        parts.append(f"depth_gating {group['depth_gating']['capacity']:g}")
    stage = group["stage"]
    if stage:
        times = f" ×{group['evaluations']}" if group["evaluations"] > 1 else ""
        parts.append(f"{stage.get('stream', stage['word'])}{times}")
    return (f"{group['template']}: " if named else "") + " · ".join(parts)


def folded(keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(length, times): how many keys make a pattern, and how often it comes; from the start, the longest stretch first.

    A key that is repeated alone is a pattern of its run that comes once.
    """
    start = 0
    while start < len(keys):
        length, times = 1, 1
        for size in range(1, LONGEST_PATTERN + 1):
            count = 1
            while keys[start : start + size] == keys[start + count * size : start + (count + 1) * size]:
                count += 1
            if count > 1 and count * size > length * times:
                length, times = size, count
        yield (times, 1) if length == 1 else (length, times)
        start += length * times


def _drawn(lines: Sequence[Line], width: int) -> Iterator[str]:
    number_width = max(cells(line.layers) for line in lines)
    figure_width = max(len(short_count(line.params)) for line in lines)
    text_width = min(max(cells(line.text) for line in lines), width - number_width - figure_width - 17)
    bar_width = min(30, width - number_width - figure_width - text_width - 9)
    most = max(line.params for line in lines) or 1
    for line in lines:
        pieces = wrap(line.text, text_width)
        bar = _bar(line.params / most, bar_width) + " " + f"{short_count(line.params):>{figure_width}}"
        for number, piece in enumerate(pieces):
            label = line.layers if number == 0 else ""
            border = line.border if number == 0 or line.border not in "┌" else "│"
            start = f"  {border} {' ' * (number_width - cells(label))}{label}  "
            shown = f"  {bar}" if number == 0 and line.params else ""
            yield f"{start}{piece}{' ' * (text_width - cells(piece)) if shown else ''}{shown}".rstrip()


def _bar(share: float, width: int) -> str:
    eighths = max(1, round(share * width * 8))
    bar = BLOCKS[-1] * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")
    return bar.ljust(width)
