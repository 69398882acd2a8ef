"""The hooks of this package."""

from __future__ import annotations

from pathlib import Path

from eulerstack.plugins import (
    Catalog,
    Importer,
    Namespace,
    PresetFolder,
    Primitive,
    Rule,
    SchemaFragment,
    Target,
    hookimpl,
)
from eulerstack_toy.declarations.ema import EMA
from eulerstack_toy.declarations.ffn import MAXOUT
from eulerstack_toy.declarations.head import LOW_RANK
from eulerstack_toy.declarations.integrator import RELAX
from eulerstack_toy.declarations.linear import BLOCK_DIAGONAL, BLOCKS
from eulerstack_toy.declarations.memory import AVERAGE
from eulerstack_toy.declarations.merge import BLEND
from eulerstack_toy.declarations.norm import POWER_NORM
from eulerstack_toy.declarations.position import WAVES
from eulerstack_toy.declarations.residual import GATED
from eulerstack_toy.importer import TOY
from eulerstack_toy.rule import FORGETS_LATE
from eulerstack_toy.target import TABLE
from eulerstack_toy.words import LEARNING_RATE, TELEMETRY

FOLDER = Path(__file__).parent


@hookimpl
def eulerstack_mixers() -> list[Primitive]:
    """The mixer `vendor.toy.ema`."""
    return [EMA]


@hookimpl
def eulerstack_ffns() -> list[Primitive]:
    """The feed-forward block `vendor.toy.maxout`."""
    return [MAXOUT]


@hookimpl
def eulerstack_norms() -> list[Primitive]:
    """The norm `vendor.toy.power`."""
    return [POWER_NORM]


@hookimpl
def eulerstack_positions() -> list[Primitive]:
    """The positions `vendor.toy.waves`."""
    return [WAVES]


@hookimpl
def eulerstack_residuals() -> list[Primitive]:
    """The residual `vendor.toy.gated`."""
    return [GATED]


@hookimpl
def eulerstack_memories() -> list[Primitive]:
    """The memory `vendor.toy.average`."""
    return [AVERAGE]


@hookimpl
def eulerstack_heads() -> list[Primitive]:
    """The head `vendor.toy.low_rank`."""
    return [LOW_RANK]


@hookimpl
def eulerstack_integrators() -> list[Primitive]:
    """The integrator `vendor.toy.relax`."""
    return [RELAX]


@hookimpl
def eulerstack_merges() -> list[Primitive]:
    """The merge `vendor.toy.blend`."""
    return [BLEND]


@hookimpl
def eulerstack_linears() -> list[Primitive]:
    """The linear layer `vendor.toy.blocks`."""
    return [BLOCKS]


@hookimpl
def eulerstack_schema_fragments() -> list[SchemaFragment]:
    """The word `vendor.toy.learning_rate` of `training_hints`."""
    return [LEARNING_RATE]


@hookimpl
def eulerstack_namespaces() -> list[Namespace]:
    """The keys `vendor.toy.telemetry` and `vendor.toy.block_diagonal`."""
    return [TELEMETRY, BLOCK_DIAGONAL]


@hookimpl
def eulerstack_rules() -> list[Rule]:
    """The rule `toy_forgets_late`."""
    return [FORGETS_LATE]


@hookimpl
def eulerstack_presets() -> list[PresetFolder]:
    """The presets of this package."""
    return [PresetFolder(str(FOLDER / "presets"))]


@hookimpl
def eulerstack_messages() -> list[Catalog]:
    """What the messages of this package are called in other languages."""
    return [Catalog("eulerstack_toy", str(FOLDER / "locale"))]


@hookimpl
def eulerstack_targets() -> list[Target]:
    """The back end `vendor.toy.table`."""
    return [TABLE]


@hookimpl
def eulerstack_importers() -> list[Importer]:
    """The family `toy`."""
    return [TOY]
