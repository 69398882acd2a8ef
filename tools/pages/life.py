"""docs/life-of-a-spec.md: the stages that a spec goes through, and what each asks of plugins, drawn.

`STAGES` is held against the hook specs, the declarations' fields and a run that notes who is asked when by
tests/plugins/test_life_of_a_spec.py.
"""

from __future__ import annotations

import dataclasses
import textwrap

from figures import drawing

from pages.markdown import GENERATED, join, table


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: what it makes, what does it, whose declarations it reads, and which of their functions it asks first.

    `key` is the stage's name in the diagram, `path` "main" or what leads past it: "in" and "out" for other programs'
    models.
    """

    key: str
    title: str
    makes: str
    by: str
    hooks: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    path: str = "main"


KINDS = ("mixers", "ffns", "norms", "positions", "residuals", "heads", "integrators", "merges", "memories")
STAGES = (
    Stage("load", "read", "text with a position for every value", "es.load", ("presets",)),
    Stage(
        "structure", "check the structure", "a mapping that fits one JSON Schema, made of everybody's words",
        "es.validate_v2", (*KINDS, "schema_fragments", "namespaces", "targets"),
    ),
    Stage(
        "compatibility", "check what words mean together", "a valid spec", "es.validate_v2", KINDS,
        ("Primitive.resolve", "Primitive.checks", "Primitive.cache", "Primitive.lm_head", "Primitive.head_layers",
         "Primitive.routed_units", "Primitive.cost", "Primitive.norm_slots", "Primitive.streams"),
    ),
    Stage(
        "normalise", "make it complete", "the IR: every default filled in, frozen, printable", "es.normalize_to_ir",
        (*KINDS, "schema_fragments", "namespaces", "linears"),
        ("Primitive.copies", "Namespace.resolve", "Primitive.linears", "Namespace.replaces"),
    ),
    Stage(
        "report", "ask whether it is sensible", "findings", "eulerstack validate --report",
        ("rules", *KINDS, "linears"), ("Rule.check", "Primitive.evaluations", "Primitive.stream_ends_cost"),
    ),
    Stage(
        "explain", "say what it costs", "parameters, FLOPs and bytes, exact and without torch", "eulerstack explain",
        (*KINDS, "linears"),
    ),
    Stage(
        "config", "describe the model", "config.json", "es.compile_to_directory", (*KINDS, "namespaces", "linears"),
        ("Namespace.compile", "Primitive.features", "Primitive.implementations", "Primitive.adds_loss",
         "Primitive.config_fields", "Primitive.tensor_parallel"),
    ),
    Stage(
        "build", "build it", "modeling_eulerstack.py, joined from the classes used, and weights, tensor by tensor",
        "es.compile_to_directory", ("targets", *KINDS, "linears"), ("Target.function", "Primitive.module"),
    ),
    Stage(
        "import", "read a checkpoint", "a spec, and weights under its names", "eulerstack import", ("importers",),
        ("Importer.to_spec", "Importer.rules"), "in",
    ),
    Stage(
        "export", "write a checkpoint back", "a directory of the family", "eulerstack export", ("importers",),
        ("Importer.to_config", "Importer.canonical"), "out",
    ),
)  # fmt: skip
# Read whenever a sentence is printed, in whichever stage.
EVERYWHERE = ("messages",)
# Looked at, while what is built comes from the IR.
LOOKS = ("report", "explain")
OTHERS = "another program's checkpoint"
# The drawing's two columns with their widths, its rows, the boxes' height, and how much lower those of ends are.
MIDDLE, SIDE, STEP, HEIGHT, LOW = 16, 440, 104, 80, 22
WIDTHS = {MIDDLE: 380, SIDE: 260}

INTRODUCTION = """\
# The life of a spec

A spec goes from top to bottom, to the right go what is only looked at and other programs' models. In colour stands what
plugins hand out, by the hook that hands it out: declarations, which every stage reads without importing torch. Only
the last one imports classes. Each hook is asked once, when plugins are
loaded, but for `eulerstack_importers`, which is asked when a checkpoint is. [Hooks](reference/hooks.md) describes them
all."""


def page() -> str:
    """The page's text."""
    rows = [
        [
            f"**{stage.title}**",
            stage.makes,
            f"`{stage.by}`",
            ", ".join(read_by(stage)),
            ", ".join(f"`{name}`" for name in stage.asks) or "—",
        ]
        for stage in STAGES
    ]
    return join(
        GENERATED,
        INTRODUCTION,
        "![From the text to a model directory, and who is asked in which stage](images/life-of-a-spec.svg)",
        "## Stage by stage",
        "Of functions that several stages ask, the table names the first.",
        table(["stage", "makes", "by", "reads the declarations of", "asks first"], rows),
        "The catalogs of `eulerstack_messages` are read wherever a sentence is printed.",
    )


def read_by(stage: Stage) -> list[str]:
    """The hooks whose declarations a stage reads; those of primitives, of which all are read or none, as one."""
    primitives = ["those of primitives"] if set(KINDS) <= set(stage.hooks) else []
    return primitives + [f"`eulerstack_{hook}`" for hook in stage.hooks if hook not in KINDS]


def picture() -> str:
    """docs/images/life-of-a-spec.svg: the way from top to bottom; beside it what is only looked at, and importers."""
    main = [stage for stage in STAGES if stage.path == "main" and stage.key not in LOOKS]
    last = len(main) + 2
    looks = 2 + [stage.key for stage in main].index("normalise")
    beside = {stage.key: stage for stage in STAGES if stage not in main}
    parts = [_end(MIDDLE, 1, "spec.yml"), *(_box(MIDDLE, row, stage) for row, stage in enumerate(main, 2))]
    parts += [_end(MIDDLE, last, "model directory"), _end(SIDE, 0, OTHERS), _box(SIDE, 1, beside["import"])]
    parts += [_box(SIDE, row, beside[key]) for row, key in enumerate(LOOKS, looks)]
    parts += [_box(SIDE, last, beside["export"]), _end(SIDE, last + 1, OTHERS)]
    # An end's box is lower by LOW on both sides.
    down = [(MIDDLE, row, LOW * (row == 1), LOW * (row == last - 1)) for row in range(1, last)]
    for x, row, up, by in [*down, (SIDE, 0, LOW, 0), (SIDE, last, 0, LOW)]:
        middle = x + WIDTHS[x] / 2
        parts.append(drawing.arrow(middle, _top(row) + HEIGHT + 2 - up, middle, _top(row + 1) - 4 + by))
    edge, bend = MIDDLE + WIDTHS[MIDDLE], (MIDDLE + WIDTHS[MIDDLE] + SIDE) / 2
    parts.append(drawing.arrow(SIDE - 2, _middle(1), edge + 4, _middle(1)))
    parts += [drawing.arrow(edge + 2, _middle(row), SIDE - 4, _middle(row)) for row in (looks, last)]
    parts.append(f'<path class="line" d="M{bend:g} {_middle(looks):g} V{_middle(looks + 1):g}"/>')
    parts.append(drawing.arrow(bend, _middle(looks + 1), SIDE - 4, _middle(looks + 1)))
    legend = [
        "In colour: the hooks whose declarations a stage reads, without their eulerstack_ in front.",
        f"primitives: {', '.join(KINDS)}",
        *(f"{hook}: read wherever a sentence is printed" for hook in EVERYWHERE),
    ]
    end = _top(last + 2) + 8
    parts += [drawing.label(MIDDLE, end + 20 * index, line, small=True) for index, line in enumerate(legend)]
    return drawing.picture(SIDE + WIDTHS[SIDE] + 16, int(end + 20 * len(legend)), "The life of a spec", parts)


def _top(row: int) -> float:
    return STEP * row + 16


def _middle(row: int) -> float:
    return _top(row) + HEIGHT / 2


def _end(x: float, row: int, name: str) -> str:
    """Where a way begins or ends."""
    return drawing.box(x, _top(row) + LOW, WIDTHS[x], HEIGHT - 2 * LOW, name)


def _box(x: float, row: int, stage: Stage) -> str:
    """A stage: what it is called, what it makes, and in colour whose declarations it reads."""
    primitives = ["primitives"] if set(KINDS) <= set(stage.hooks) else []
    read = " · ".join([*primitives, *(hook for hook in stage.hooks if hook not in KINDS)])
    makes = textwrap.wrap(stage.makes, WIDTHS[x] // 7)
    return drawing.box(x, _top(row), WIDTHS[x], HEIGHT, stage.title, *makes, accent=read)
