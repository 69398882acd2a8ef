"""The hooks of eulerstack-mixers: hands out its declarations."""

from __future__ import annotations

from eulerstack.plugins import Importer, Primitive, Rule, hookimpl
from eulerstack_mixers.declarations.attention import ATTENTION
from eulerstack_mixers.declarations.branched import BRANCHED
from eulerstack_mixers.declarations.gated_mlp import GATED_MLP
from eulerstack_mixers.declarations.heads import CAUSAL_LM
from eulerstack_mixers.declarations.hyena import HYENA
from eulerstack_mixers.declarations.hyper_connection import HYPER_CONNECTION, HYPER_CONNECTION_RULES
from eulerstack_mixers.declarations.integrators import INTEGRATORS
from eulerstack_mixers.declarations.latent_rules import LATENT_RULES
from eulerstack_mixers.declarations.mamba import MAMBA
from eulerstack_mixers.declarations.merges import MERGES
from eulerstack_mixers.declarations.mlp import MLP
from eulerstack_mixers.declarations.model_rules import MODEL_RULES
from eulerstack_mixers.declarations.moe import MOE
from eulerstack_mixers.declarations.moe_rules import MOE_RULES
from eulerstack_mixers.declarations.mtp import CAUSAL_LM_MTP
from eulerstack_mixers.declarations.no_ffn import NO_FFN
from eulerstack_mixers.declarations.norms import NORMS
from eulerstack_mixers.declarations.positions import POSITIONS
from eulerstack_mixers.declarations.residuals import RESIDUALS
from eulerstack_mixers.declarations.retnet import RETNET
from eulerstack_mixers.declarations.stage_rules import STAGE_RULES


@hookimpl
def eulerstack_mixers() -> tuple[Primitive, ...]:
    """Token mixers."""
    return (ATTENTION, BRANCHED, HYENA, MAMBA, RETNET)


@hookimpl
def eulerstack_ffns() -> tuple[Primitive, ...]:
    """Feed-forward blocks."""
    return (MLP, GATED_MLP, MOE, NO_FFN)


@hookimpl
def eulerstack_norms() -> tuple[Primitive, ...]:
    """Normalisations."""
    return NORMS


@hookimpl
def eulerstack_positions() -> tuple[Primitive, ...]:
    """Ways to tell positions apart."""
    return POSITIONS


@hookimpl
def eulerstack_residuals() -> tuple[Primitive, ...]:
    """Rules that join a layer's branches."""
    return (*RESIDUALS, HYPER_CONNECTION)


@hookimpl
def eulerstack_heads() -> tuple[Primitive, ...]:
    """Output heads."""
    return (CAUSAL_LM, CAUSAL_LM_MTP)


@hookimpl
def eulerstack_integrators() -> tuple[Primitive, ...]:
    """Stages that apply a layer several times."""
    return INTEGRATORS


@hookimpl
def eulerstack_merges() -> tuple[Primitive, ...]:
    """Ways to make one stream of several."""
    return MERGES


@hookimpl
def eulerstack_rules() -> tuple[Rule, ...]:
    """Realism rules about this package's words."""
    return (*MODEL_RULES, *LATENT_RULES, *MOE_RULES, *HYPER_CONNECTION_RULES, *STAGE_RULES)


@hookimpl
def eulerstack_importers() -> list[Importer]:
    """HuggingFace families that `import` reads; loaded when asked for."""
    from eulerstack_mixers.importers.registry import importers

    return importers()
