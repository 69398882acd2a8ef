"""The output head: logits over the vocabulary for the next token.

Shapes: hidden_states (batch, time, d_model) -> logits (batch, time, vocab_size)
Cost:   no parameters but the model's `lm_head`, which the core counts unless it is the embedding's table;
        FLOPs per token 2·vocab_size·d_model
Source: tying, Press and Wolf 2016, arXiv:1608.05859
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eulerstack.plugins import Cost, Dims, Primitive
from eulerstack_mixers.declarations.words import number

Params = Mapping[str, Any]


def resolve(params: Params, model: Mapping[str, Any]) -> Params:
    """Decides tying: the head's word, else the embedding's, else true."""
    said = (params["tie_weights"], model["embedding"]["tie_word_embeddings"], True)
    return {**params, "tie_weights": next(word for word in said if word is not None)}


def cost(dims: Dims, params: Params, element_bytes: int) -> Cost:
    """The FLOPs of the projection with `lm_head`, which is all that the head has."""
    return Cost(flops_per_token=2 * dims.vocab_size * dims.d_model)


CAUSAL_LM = Primitive(
    name="causal_lm",
    kind="head",
    summary="one projection to the vocabulary, predicting the next token",
    module="eulerstack_mixers.modules.heads:CausalLMHead",
    reference="eulerstack_mixers.reference.heads:causal_lm",
    inline={
        "tie_weights": {
            "type": ["boolean", "null"],
            "default": None,
            "description": "Project with the embedding's own table; null: embedding.tie_word_embeddings, else true.",
        },
        "logit_softcap": number(
            "Logits z become logit_softcap · tanh(z / logit_softcap), after logit_scale; null: left as they are.",
            None,
            nullable=True,
            exclusiveMinimum=0,
        ),
        "logit_scale": number("Factor on the logits.", 1.0, exclusiveMinimum=0),
    },
    resolve=resolve,
    cost=cost,
)
