"""Multi-token prediction: modules that predict the tokens after the next, for training and for drafting.

Module k = 1 … D reads the hidden states of module k-1 (the first those of the model, after its final norm) and the
embedding of the token k places later, and predicts the token after that through the model's own head:

    h_i^k = norm(layers(eh_proj [enorm(Emb(t_{i+k})) ; hnorm(h_i^{k-1})]))        p(t_{i+k+1}) = head(h_i^k)

While training the loss is L + λ/D · Σ_k L_k, each L_k divided by the number of tokens that L is divided by. The logits
do not depend on the modules.

Shapes: hidden_states (batch, time, d_model), embeddings of later tokens (batch, time, d_model)
        -> hidden_states (batch, time, d_model)
State:  of a module that drafts, a cache of its layers; a position whose token was only drafted is computed again
Cost:   2·d_model² parameters, three norms and the layers for each module
Source: DeepSeek-AI 2024, DeepSeek-V3, arXiv:2412.19437, equations 21 to 25, in the checkpoint's order of columns
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache

from eulerstack.hf.ecosystem import FREE_FIELDS, ecosystem_fields
from eulerstack.hf.modeling import EulerStackModel
from eulerstack.hf.primitives import primitive_class
from eulerstack_mixers.modules.drafting import HeadDrafts
from eulerstack_mixers.modules.heads import CausalLMHead


def module_config(config: Any, layers: int) -> Any:
    """The config of the stack of layers in a module: the model's, with other layers and without embeddings."""
    architecture = config.architecture
    head = architecture["head"]
    norm = {key: value for key, value in architecture["blocks"][head["block"]]["norm"].items() if key != "position"}
    position = architecture["position"]
    if position.get("place") == "embeddings":
        position = {key: value for key, value in position.items() if key != "place"}
    own = copy.deepcopy(config)
    own.architecture = {
        **architecture,
        "embedding": {**architecture["embedding"], "absent": True},
        "position": position,
        "layers": [head["block"]] * layers,
        "final_norm": norm,
        "linears": [],
    }
    own.layer_types = head["layer_types"] * layers
    for name, value in ecosystem_fields(own.architecture).items():
        if name not in FREE_FIELDS:
            setattr(own, name, value)
    return own


class PredictionModule(nn.Module):
    """One module: it predicts one token further than the one before it."""

    def __init__(self, config: Any, stack_config: Any):
        super().__init__()
        norm = stack_config.architecture["final_norm"]
        self.enorm = primitive_class("norm", norm)(config.hidden_size, norm["params"])
        self.hnorm = primitive_class("norm", norm)(config.hidden_size, norm["params"])
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.stack = EulerStackModel(stack_config)

    def forward(
        self, hidden_states: torch.Tensor, embeddings: torch.Tensor, input_ids: torch.Tensor | None, **kwargs: Any
    ) -> Any:
        """The stack's output; `input_ids` are what `embeddings` stand for, `kwargs` the stack's other arguments."""
        if self.stack.reads_tokens:
            kwargs["input_ids"] = input_ids
        joined = torch.cat((self.enorm(embeddings), self.hnorm(hidden_states)), dim=-1)
        return self.stack(inputs_embeds=self.eh_proj(joined), **kwargs)


def continues(position_ids: torch.Tensor, distance: int) -> torch.Tensor:
    """Which tokens but the last `distance` have a token that many places later in their own sequence, (batch, rest)."""
    return position_ids[:, distance:] == position_ids[:, :-distance] + distance


class MultiTokenHead(CausalLMHead):
    """The causal head, with modules that predict further tokens."""

    def __init__(self, config: Any, params: dict[str, Any]):
        super().__init__(config, params)
        self.loss_weight = params["train_loss_weight"]
        stack_config = module_config(config, params["head_layers"])
        self.predictors = nn.ModuleList([PredictionModule(config, stack_config) for _ in range(params["n_predict"])])

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        loss_function: Any,
        hidden_states: torch.Tensor,
        lm_head: Any,
        batch: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
        phase_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' next-token loss, to which a training pass adds the modules'; and what their routing adds.

        Every module's loss is divided by as many tokens as the next-token loss, so that the parts of an accumulated
        batch add up. `phase_ids` go to every loss with the labels.
        """
        phased = {} if phase_ids is None else {"phase_ids": phase_ids}
        vocab_size = logits.shape[-1]
        loss = loss_function(
            logits=logits,
            labels=labels,
            vocab_size=vocab_size,
            num_items_in_batch=num_items_in_batch,
            **phased,
            **kwargs,
        )
        if not self.training:
            return loss
        count = num_items_in_batch
        if count is None:
            count = (labels[:, 1:] != -100).sum().clamp(min=1)
        losses, router_losses = [], []
        for depth, (predicted, targets, router_loss) in enumerate(self.predictions(hidden_states, labels, batch), 1):
            further = self(predicted, lm_head)
            if phase_ids is not None:
                # A loss takes the phases of labels that are not shifted yet.
                phased = {"phase_ids": phase_ids[:, depth:]}
            losses.append(
                loss_function(
                    logits=further,
                    labels=None,
                    vocab_size=vocab_size,
                    num_items_in_batch=count,
                    shift_labels=targets.contiguous(),
                    **phased,
                )
            )
            if router_loss is not None:
                router_losses.append(router_loss)
        if losses:
            loss = loss + self.loss_weight / len(self.predictors) * sum(losses)
        return (loss, sum(router_losses)) if router_losses else loss

    def predictions(self, hidden_states: torch.Tensor, labels: torch.Tensor, batch: dict[str, Any]) -> Any:
        """For each module its hidden states, what it should have predicted, and what its routing adds to the loss.

        Module k sees the tokens that have one k places later. A target counts where that token, and the one after it,
        belong to the same sequence as the position they are predicted from.
        """
        embeddings, mask, position_ids = batch["inputs_embeds"], batch["attention_mask"], batch["position_ids"]
        time = labels.shape[1]
        if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2):
            raise ValueError("causal_lm_mtp trains with a padding mask (batch, time), or without one")
        places = position_ids
        if places is None and mask is not None:
            places = EulerStackModel.default_positions(embeddings, mask, None)
        for depth, predictor in enumerate(self.predictors, 1):
            seen = time - depth
            if seen < 1:
                return
            # A position whose later token is padding, or another sequence's, counts in no loss of routing either.
            kept = None if places is None else continues(places, depth).expand(labels.shape[0], -1)
            output = predictor(
                hidden_states[:, :seen],
                embeddings[:, depth:],
                input_ids=None if batch["input_ids"] is None else batch["input_ids"][:, depth:],
                attention_mask=None if mask is None else mask[:, -time:][:, :seen],
                position_ids=None if position_ids is None else position_ids[..., :seen],
                use_cache=False,
                kept_tokens=kept,
            )
            hidden_states = output.last_hidden_state
            targets = nn.functional.pad(labels[:, depth + 1 :], (0, 1), value=-100)
            if places is not None and seen > 1:
                inside = continues(places, depth + 1).expand(targets.shape[0], -1)
                targets = targets.masked_fill(~nn.functional.pad(inside, (0, 1)), -100)
            yield hidden_states, targets, output.router_loss

    def candidate_generator(self, model: Any, generation_config: Any, logits_processor: Any) -> HeadDrafts:
        """What drafts tokens for `generate(use_mtp=True)`."""
        return HeadDrafts(model, generation_config, logits_processor)

    def draft_caches(self) -> list[DynamicCache]:
        """An empty cache for each module."""
        return [DynamicCache(config=predictor.stack.config) for predictor in self.predictors]
