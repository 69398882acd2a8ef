"""docs/life-of-a-spec.md: the stages that a spec goes through, and what each asks of plugins, as a diagram.

`STAGES` is held against the hook specs, the declarations' fields and a run that notes who is asked when by
tests/plugins/test_life_of_a_spec.py.
"""

from __future__ import annotations

import dataclasses

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

INTRODUCTION = """\
# The life of a spec

A spec goes down the middle. Beside it stands what plugins hand out, by the hook that hands it out: declarations, which
every stage reads without importing torch. Only the last one imports classes. Each hook is asked once, when plugins are
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
        diagram(),
        "## Stage by stage",
        "Of functions that several stages ask, the table names the first.",
        table(["stage", "makes", "by", "reads the declarations of", "asks first"], rows),
        "The catalogs of `eulerstack_messages` are read wherever a sentence is printed.",
    )


def read_by(stage: Stage) -> list[str]:
    """The hooks whose declarations a stage reads; those of primitives, of which all are read or none, as one."""
    primitives = ["those of primitives"] if set(KINDS) <= set(stage.hooks) else []
    return primitives + [f"`eulerstack_{hook}`" for hook in stage.hooks if hook not in KINDS]


def diagram() -> str:
    """The picture, in mermaid."""
    main = [stage for stage in STAGES if stage.path == "main"]
    lines = ["```mermaid", "flowchart TD", '    text(["spec.yml"])']
    lines += [f'    {stage.key}["{stage.title}<br/><i>{stage.makes}</i>"]' for stage in STAGES]
    lines += ['    directory(["model directory"])', '    checkpoint(["another program\'s checkpoint"])']
    # Reports and prices are looked at; what is built comes from the IR.
    looks = ("report", "explain")
    way = [stage.key for stage in main if stage.key not in looks]
    lines.append("    text --> " + " --> ".join([*way, "directory"]))
    lines += [f"    normalise --> {key}" for key in looks]
    lines += ["    checkpoint --> import --> text", "    directory --> export --> checkpoint"]
    primitives = '    primitives[/"' + "<br/>".join(f"eulerstack_{kind}" for kind in KINDS) + '"/]'
    lines.append(primitives)
    lines += [f"    primitives -.-> {stage.key}" for stage in STAGES if set(KINDS) <= set(stage.hooks)]
    others = dict.fromkeys(hook for stage in STAGES for hook in stage.hooks if hook not in KINDS)
    for hook in others:
        lines.append(f'    {hook}[/"eulerstack_{hook}"/]')
        lines += [f"    {hook} -.-> {stage.key}" for stage in STAGES if hook in stage.hooks]
    lines += [f'    {hook}[/"eulerstack_{hook}"/] -.- everywhere(["every sentence printed"])' for hook in EVERYWHERE]
    return "\n".join([*lines, "```"])
