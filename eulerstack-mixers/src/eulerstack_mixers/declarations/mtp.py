"""The head that predicts several tokens: that of causal_lm, and modules which predict the tokens after the next.

Module k = 1 … D = n_predict makes of the hidden states of module k-1 (the first of the model's own, after the final
norm) and the token k places later

    h_i^k = norm(layers(W [norm(Emb(t_{i+k})) ; norm(h_i^{k-1})]))

with `head_layers` layers of the template `head_template`, and predicts t_{i+k+1} by the head that predicts t_{i+1}.
While training its loss L_k is added: loss + λ/D · Σ_k L_k, λ = train_loss_weight. While generating it drafts.

Shapes: hidden_states (batch, time, d_model) -> logits (batch, time, vocab_size), those of causal_lm
State:  while drafting the caches of its layers; otherwise none
Cost:   for each module 2·d_model² parameters, three norms and its layers; none of them is needed for the logits. For a
        drafted token, FLOPs of its layers, 4·d_model² and those of the head, 2·vocab_size·d_model
Source: DeepSeek-AI 2024, DeepSeek-V3, arXiv:2412.19437, section 2.2; Gloeckle et al. 2024, arXiv:2404.19737
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, HeadLayers, Primitive
from eulerstack_mixers.declarations.heads import CAUSAL_LM, cost, resolve
from eulerstack_mixers.declarations.words import block, integer, number

Params = Mapping[str, Any]
# A norm of the embedding, one of the hidden states, and one after the layers.
NORMS = 3

SCHEMA = block(
    {
        "n_predict": integer(
            "Tokens after the next that are predicted too, each by a module of its own.", 1, minimum=1, maximum=64
        ),
        "head_layers": integer("Layers of each module.", 1, minimum=1, maximum=1000),
        "head_template": {
            "type": ["string", "null"],
            "default": None,
            "description": "Template of these layers. null: that of the schedule's last layer.",
        },
        "train_loss_weight": number(
            "Weight of the modules' mean loss, which is added to the loss while training.", 0.3, exclusiveMinimum=0
        ),
    },
    "The modules that predict further tokens.",
)


def resolve_mtp(params: Params, model: Mapping[str, Any]) -> Params:
    """Decides tying, and the template that null stands for."""
    template = params["head_template"]
    return {**resolve(params, model), "head_template": model["last_template"] if template is None else template}


def head_layers(dims: Dims, params: Params) -> HeadLayers:
    """The modules; beside layers and norms each has a projection of two vectors, and the shared head."""
    projection = 2 * dims.d_model**2
    return HeadLayers(
        word="head_template",
        template=params["head_template"],
        modules=params["n_predict"],
        layers=params["head_layers"],
        norms=NORMS,
        cost=Cost(params=projection, flops_per_token=2 * projection + 2 * dims.vocab_size * dims.d_model),
    )


CAUSAL_LM_MTP = Primitive(
    name="causal_lm_mtp",
    kind="head",
    summary="the next token, and while training and drafting the tokens after it",
    paper="arXiv:2412.19437",
    module="eulerstack_mixers.modules.mtp:MultiTokenHead",
    reference="eulerstack_mixers.reference.mtp:drafted_hidden_states",
    schema=SCHEMA,
    block="mtp",
    inline=CAUSAL_LM.inline,
    resolve=resolve_mtp,
    cost=cost,
    head_layers=head_layers,
    config_fields=lambda params, model: {"num_mtp_layers": params["n_predict"]},
)
