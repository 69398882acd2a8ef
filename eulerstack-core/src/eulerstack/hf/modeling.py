"""The decoder that a spec describes: embedding, stages, final norm, head.

Every layer is put together from primitives: a mixer, a feed-forward block, norms, and the residual rule that joins
them.

Shapes: input_ids (batch, time) -> hidden states (batch, time, d_model) -> logits (batch, time, vocab_size)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from eulerstack.hf.attention_base import AttentionBase
from eulerstack.hf.cache import GATED_LAYER_PREFIX, STATE_LAYER_TYPE
from eulerstack.hf.configuration import EulerStackConfig
from eulerstack.hf.depth_gating import DepthGating
from eulerstack.hf.ecosystem import layers_of_stage
from eulerstack.hf.initial_weights import own_deviation, redraw, width_multiplier
from eulerstack.hf.linears import replace_linears
from eulerstack.hf.masks import create_masks, packed_sequences, state_mask
from eulerstack.hf.memory import RemembersBetweenCalls
from eulerstack.hf.parallel_stream import ParallelStream
from eulerstack.hf.phases import PhasedGenerationMixin
from eulerstack.hf.primitives import primitive_class
from eulerstack.hf.roles import keep_in_float32, note_parameter_roles
from eulerstack.hf.slots import (
    Slots,
    first_slot,
    owners_of_slots,
    projection_slot,
    slot_mixers,
    slots_from,
    slots_of_stages,
)
from eulerstack.hf.stages import Integrator, Stage, run_layers
from eulerstack.hf.streams import stream_runs
from eulerstack.hf.tables import ByName
from eulerstack.hf.width import WidthChange


class ScaledEmbedding(nn.Embedding):
    """A token embedding whose output is multiplied by a constant, rounded to the weights' dtype first."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, scale: float):
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.scale = scale

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        embedded = super().forward(input_ids)
        if self.scale == 1.0:
            return embedded
        return embedded * torch.tensor(self.scale, dtype=embedded.dtype, device=embedded.device)


def mixer_features(block: dict[str, Any]) -> list[dict[str, Any]]:
    """What the mixers of a layer, one a cache slot, declare about themselves to the model around them."""
    return [mixer.get("features", {}) for mixer in slot_mixers(block)]


# What a spec may wrap around a layer, by its word.
WRAPPERS: ByName = {
    "depth_gating": DepthGating,
    "shape_change": WidthChange,
}


class EulerStackLayer(GradientCheckpointingLayer):
    """One layer. `block` is its part of the architecture, `layer_idx` its first cache slot."""

    def __init__(self, config: Any, block: dict[str, Any], layer_idx: int):
        super().__init__()
        mixer, ffn, norm, residual = block["mixer"], block["ffn"], block["norm"], block["residual"]
        gating, change = block.get("depth_gating"), block.get("shape_change")
        # None where all tokens pass, or the layer has the model's width.
        self.depth_gate = (
            None if gating is None else WRAPPERS["depth_gating"](config, gating, slots_from(layer_idx, block))
        )
        self.width_change = (
            None if change is None else WRAPPERS["shape_change"](config, change, projection_slot(layer_idx, block))
        )
        if self.width_change is not None:
            config = self.width_change.sized(config, block["sizes"])
        self.mixer = primitive_class("mixer", mixer)(config, mixer["params"], layer_idx)
        # None where the layer is its mixer alone.
        self.ffn: Any = None if ffn.get("absent") else primitive_class("ffn", ffn)(config, ffn["params"])
        # The parts that report what their routing adds to the loss.
        self.routed = [name for name, part in (("mixer", mixer), ("ffn", ffn)) if part.get("routes")]
        # Whether a pass returns what its choices add to the loss, too.
        self.routes = bool(self.routed) or self.depth_gate is not None
        self.residual = primitive_class("residual", residual)(
            config, residual["params"], norm["position"], self.ffn is not None
        )
        # None where nothing stands beside the mixer.
        self.memory: Any = None
        if "memory" in block:
            slot = layer_idx + len(slot_mixers(block))
            self.memory = primitive_class("memory", block["memory"])(config, block["memory"]["params"], slot)
        for slot in residual["norms"]:
            self.add_module(slot, primitive_class("norm", norm)(config.hidden_size, norm["params"]))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        position_embeddings: Any = None,
        past_key_values: Cache | None = None,
        kept_tokens: torch.Tensor | None = None,
        token_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The stream after the layer, (batch, time, d_model), or several where its residual has several. A layer that
        routes also returns what its routing adds to the loss, and its experts' load, so that a checkpointed pass hands
        them out once.

        `attention_mask` and `position_embeddings` are those of the mixer's cache slot, or one of each for every mixer
        that it holds.
        """
        given = {"past_key_values": past_key_values, "token_ids": token_ids, **kwargs}
        if self.depth_gate is not None:
            return self.depth_gate.around(self.block, hidden_states, attention_mask, position_embeddings, **given)
        outputs = self.block(hidden_states, attention_mask, position_embeddings, kept_tokens=kept_tokens, **given)
        return outputs if self.routes else outputs[0]

    def block(
        self, hidden_states: torch.Tensor, attention_mask: Any, position_embeddings: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The layer for tokens that no gate keeps out: the stream after it, and what `core` says of routing."""
        given = {"attention_mask": attention_mask, "position_embeddings": position_embeddings, **kwargs}
        return (
            self.core(hidden_states, **given)
            if self.width_change is None
            else self.width_change(self.core, hidden_states, **given)
        )

    def core(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any,
        position_embeddings: Any,
        kept_tokens: torch.Tensor | None = None,
        token_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The stream after mixer and feed-forward block; what their routing adds to the loss, and the latter's load."""

        def mixer(branch: torch.Tensor) -> torch.Tensor:
            output = self.mixer(
                branch, position_embeddings=position_embeddings, attention_mask=attention_mask, **kwargs
            )
            # Attention returns its weights too.
            output = output[0] if isinstance(output, tuple) else output
            if self.memory is None:
                return output
            return output + self.memory(branch, attention_mask=kept_tokens, **kwargs)

        if not self.routed:
            return self.residual(self, hidden_states, mixer), None, None
        parts = [self.get_submodule(name) for name in self.routed]
        for part in parts:
            part.begin(kept_tokens, token_ids, kwargs.get("sequence_ids"))
        hidden_states = self.residual(self, hidden_states, mixer)
        losses, loads = zip(*(part.finish() for part in parts), strict=True)
        found = [loss for loss in losses if loss is not None]
        # A mixer has no load.
        return hidden_states, sum(found) if found else None, loads[-1]

    def correct(self) -> None:
        """Lets the router learn from the load of the last pass, before its next one while training."""
        if "ffn" in self.routed:
            self.ffn.correct()


class EulerStackDecoderLayer(EulerStackLayer, Stage):
    """A layer that is a stage of the stack."""


# Stages that hold several layers, by the word of the schedule that asks for them.
STAGES: ByName = {
    "integrator": Integrator,
    "parallel": ParallelStream,
}


def make_stage(config: Any, stage: Any, slots: list[Slots]) -> Stage:
    """The module of a stage, whose layers have these cache slots. `stage` is its part of the architecture."""
    blocks = config.architecture["blocks"]
    if isinstance(stage, int):
        return EulerStackDecoderLayer(config, blocks[stage], first_slot(slots[0]))
    # The slot of a merge, where there is one, comes after those of the layers.
    layers = [
        EulerStackLayer(config, blocks[block], first_slot(own))
        for block, own in zip(layers_of_stage(stage), slots, strict=False)
    ]
    kind = next(kind for word, kind in STAGES.items() if word in stage)
    return kind.of_architecture(config, stage, layers, slots)


def hidden_states_recorder() -> OutputRecorder:
    """Records what each stage puts out."""
    recorder = OutputRecorder(Stage)
    # By this attribute transformers counts from the end; older versions don't ask.
    recorder.num_hidden_layers_key = "num_stages"
    return recorder


@dataclass
class StackOutput(BaseModelOutputWithPast):
    """The stack's output; `router_loss` is what routing adds to the loss of a training pass."""

    router_loss: torch.FloatTensor | None = None


@dataclass
class EulerStackOutput(CausalLMOutputWithPast):
    """The model's output; `aux_loss` is the part of `loss` that routing adds."""

    aux_loss: torch.FloatTensor | None = None


class EulerStackPreTrainedModel(PreTrainedModel):
    """What every EulerStack model tells transformers about itself."""

    config: EulerStackConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EulerStackDecoderLayer", *(stage.__name__ for stage in STAGES.values())]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": hidden_states_recorder(),
        "attentions": OutputRecorder(AttentionBase, index=1),
    }

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        config.verify()
        features = [owner.get("features", {}) for owner in owners_of_slots(config.architecture)]
        unsupported = {backend for each in features for backend in each.get("unsupported", ())}
        if config.architecture["position"].get("place") == "scores":
            # A bias of its own for every head is an additive mask, which only eager and sdpa take.
            unsupported |= {"flash", "flex", "serving"}
        self._supports_sdpa = "sdpa" not in unsupported
        self._supports_flash_attn = "flash" not in unsupported
        self._supports_flex_attn = "flex" not in unsupported
        self._supports_attention_backend = "serving" not in unsupported
        kernels = [each["flash_kernels"] for each in features if "flash_kernels" in each]
        if kernels:
            self._compatible_flash_implementations = [
                kernel for kernel in kernels[0] if all(kernel in others for others in kernels)
            ]
        # How many tokens a gated layer processes shows only when it runs.
        gated = any("depth_gating" in block for block in config.architecture["blocks"])
        self._can_compile_fullgraph = config.architecture.get("one_graph", True) and not gated
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # A module with parameters that transformers doesn't know fills them itself, by `initialize`.
        if hasattr(module, "initialize"):
            module.initialize(own_deviation(module, self.config))
        else:
            super()._init_weights(module)
            redraw(module, self.config)

    def settle(self) -> None:
        """What can be done once all modules are there, before weights are initialised."""
        note_parameter_roles(self)
        keep_in_float32(self)
        self.post_init()


# What changes a stack once its modules are there, by the word of the architecture that asks for it.
CHANGES: ByName = {
    "linears": replace_linears,
}


class EulerStackModel(EulerStackPreTrainedModel):
    """The stack without its head."""

    def __init__(self, config: Any):
        super().__init__(config)
        architecture = config.architecture
        embedding = architecture["embedding"]
        scale = config.hidden_size**0.5 if embedding["scale"] == "sqrt_d_model" else embedding["scale"]
        # A stack within a head is given embeddings.
        self.embed_tokens: Any = None
        if not embedding.get("absent", False):
            self.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size, config.pad_token_id, scale)
        # Where positions are the mixers' business, the model has no part of its own for them.
        position = architecture["position"]
        self.position: Any = None
        if "place" in position:
            self.position = primitive_class("position", position)(config, position["params"])
        self.adds_positions = position.get("place") == "embeddings"
        self.attention_bias = self.position.attention_bias if position.get("place") == "scores" else None
        self.dropout = nn.Dropout(architecture["training_hints"]["dropout"])
        slots = slots_of_stages(architecture)
        self.layers = nn.ModuleList(
            [make_stage(config, stage, own) for stage, own in zip(architecture["layers"], slots, strict=True)]
        )
        # A stage of several layers is given the masks and rotations of all slots.
        self.slots_of_stages = [
            own[0] if isinstance(stage, int) else None for stage, own in zip(architecture["layers"], slots, strict=True)
        ]
        # Where residuals have several streams: what makes and joins them.
        self.stream_ends: Any = stream_runs(config, architecture["layers"])
        layers = [layer for layer in self.layers.modules() if isinstance(layer, EulerStackLayer)]
        self.routing_layers = [layer for layer in layers if layer.routes]
        self.reads_tokens = any(getattr(layer.ffn, "reads_tokens", False) for layer in self.routing_layers)
        self.reads_sequences = any(getattr(layer.ffn, "reads_sequences", False) for layer in self.routing_layers)
        for layer in layers:
            if layer.depth_gate is not None:
                layer.depth_gate.attention_bias = self.attention_bias
        final_norm = architecture["final_norm"]
        self.norm = (
            nn.Identity()
            if final_norm is None
            else primitive_class("norm", final_norm)(config.hidden_size, final_norm["params"])
        )
        # Mixers that rotate alike share one table of cosines and sines.
        ropes: list[Any] = []
        self.rope_of_slot: list[int | None] = []
        self.layer_types = list(config.layer_types)
        self.needs_sequences = any(
            each == STATE_LAYER_TYPE or each.startswith(GATED_LAYER_PREFIX) for each in self.layer_types
        )
        for owner in owners_of_slots(architecture):
            rope = owner.get("features", {}).get("rotation")
            if rope is not None and rope not in ropes:
                ropes.append(rope)
            self.rope_of_slot.append(None if rope is None else ropes.index(rope))
        self.rotary_embs = nn.ModuleList([primitive_class("position", rope)(config, rope["params"]) for rope in ropes])
        for change in CHANGES.values():
            change(self)
        self.gradient_checkpointing = False
        self.settle()
        if architecture["training_hints"]["checkpointing"]:
            self._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> StackOutput:
        """Hidden states after the final norm, (batch, time, d_model).

        `attention_mask` is (batch, past + time) of 0 and 1, or masks by layer type as `create_masks` makes them.
        Without `position_ids` positions count the tokens that are not padding. Where a layer reads token ids,
        `inputs_embeds` must come with the `input_ids` that they stand for.
        """
        if self.reads_tokens:
            if input_ids is None:
                raise ValueError("this model routes tokens by their ids: give input_ids, beside inputs_embeds too")
        elif (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        given_positions = position_ids
        if position_ids is None:
            position_ids = self.default_positions(inputs_embeds, attention_mask, past_key_values)
        if isinstance(attention_mask, dict):
            masks = attention_mask
        else:
            masks = create_masks(
                self.config, inputs_embeds, attention_mask, past_key_values, position_ids, self.attention_bias
            )

        hidden_states = inputs_embeds
        if self.adds_positions:
            hidden_states = hidden_states + self.position(position_ids).to(hidden_states.dtype)
        hidden_states = self.dropout(hidden_states)
        if self.needs_sequences or (self.training and self.reads_sequences):
            # Positions that were not given never restart, which a traced forward can't find out by looking at them.
            kwargs["sequence_ids"] = packed_sequences(given_positions, attention_mask, past_key_values)
        # A head that knows which tokens count, (batch, time), gives them: those that are padding are not among them.
        if kwargs.get("kept_tokens") is None:
            if STATE_LAYER_TYPE in masks:
                kwargs["kept_tokens"] = masks[STATE_LAYER_TYPE]
            elif self.routing_layers:
                padding = attention_mask if isinstance(attention_mask, torch.Tensor) else None
                kwargs["kept_tokens"] = state_mask(inputs_embeds, padding)
        if self.routing_layers:
            kwargs["token_ids"] = input_ids
        if self.training:
            # What the last pass has found; before its backward pass was over, routes had to stay as they were.
            for layer in self.routing_layers:
                layer.correct()
        tables = [rotary(hidden_states, position_ids) for rotary in self.rotary_embs]
        hidden_states, router_loss = run_layers(
            self.layers,
            self.slots_of_stages,
            self.stream_ends,
            hidden_states,
            attention_mask=[masks[layer_type] for layer_type in self.layer_types],
            position_embeddings=[None if rope is None else tables[rope] for rope in self.rope_of_slot],
            past_key_values=past_key_values,
            position_ids=position_ids,
            use_cache=use_cache,
            **kwargs,
        )
        return StackOutput(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values, router_loss=router_loss
        )

    @staticmethod
    def default_positions(
        inputs_embeds: torch.Tensor, attention_mask: Any, past_key_values: Cache | None
    ) -> torch.Tensor:
        """Positions of the present tokens, (batch or 1, time); padding does not count."""
        time = inputs_embeds.shape[1]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -time:]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        return (torch.arange(time, device=inputs_embeds.device) + past).unsqueeze(0)


# What changes generation, by the word of the spec that asks for it. A call that has phases is one query of a memory.
GENERATION: ByName = {
    "memory": RemembersBetweenCalls,
    "execution_modes": PhasedGenerationMixin,
}


class EulerStackForCausalLM(EulerStackPreTrainedModel, *GENERATION.values(), GenerationMixin):  # type: ignore[misc]
    """The stack with a language-model head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    parameter_roles = {"lm_head.weight": "readout"}

    def __init__(self, config: Any):
        super().__init__(config)
        self.model = EulerStackModel(config)
        self.vocab_size = config.vocab_size
        head = config.architecture["head"]
        # A head may bring what it projects with; the model then has no matrix of the usual name, and nothing to tie.
        self.lm_head: Any = None
        if head.get("lm_head", True):
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        else:
            self._tied_weights_keys = {}
        self.head: Any = primitive_class("head", head)(config, head["params"])
        self.readout_multiplier = 1 / width_multiplier(config.architecture)
        self.settle()
        if self.lm_head is None:
            for name in ("_tp_plan", "_pp_plan", "_fsdp_plan"):
                setattr(self, name, {part: plan for part, plan in getattr(self, name).items() if part != "lm_head"})

    def project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits of `lm_head`. The head gets this function and not the module, which offloading would try to move.

        Under µP hidden states are divided by the width over its base on the way.
        """
        if self.readout_multiplier != 1.0:
            hidden_states = hidden_states * self.readout_multiplier
        return self.lm_head(hidden_states)

    def get_output_embeddings(self) -> Any:
        """The matrix of one row a token: `lm_head`, or the one that a head of its own names; None if it names none."""
        if self.lm_head is None and hasattr(self.head, "get_output_embeddings"):
            return self.head.get_output_embeddings()
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces that matrix."""
        if self.lm_head is None:
            self.head.set_output_embeddings(new_embeddings)
        else:
            self.lm_head = new_embeddings

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers; a ValueError when the head does not say which of its matrices has a row a token."""
        if self.get_output_embeddings() is None:
            raise ValueError(f"{type(self.head).__name__} has no get_output_embeddings, so it can't be resized")
        embedding = super().resize_token_embeddings(*args, **kwargs)
        for module in self.modules():
            # Tables of their own with a row a token.
            if hasattr(module, "resize_vocabulary"):
                module.resize_vocabulary(embedding.num_embeddings)
        return embedding

    def _get_candidate_generator(self, generation_config: Any, **kwargs: Any) -> Any:
        """As in transformers, except that `use_mtp` asks the head for drafts. ValueError when it has none to give."""
        if not getattr(generation_config, "use_mtp", None):
            return super()._get_candidate_generator(generation_config=generation_config, **kwargs)
        if not hasattr(self.head, "candidate_generator"):
            raise ValueError("use_mtp: this model's head predicts the next token only; generate without use_mtp")
        return self.head.candidate_generator(self, generation_config, kwargs.get("logits_processor"))

    def _get_static_cache_init_shape(self) -> Any:
        # Where keys and values have widths of their own, such a cache is shaped by its first tokens.
        blocks = (self.config.architecture or {})["blocks"]
        if any("shape_change" in block for block in blocks) or any(
            features.get("lazy_cache") for block in blocks for features in mixer_features(block)
        ):
            return None
        return super()._get_static_cache_init_shape()

    def create_masks_for_generate(
        self,
        config: EulerStackConfig,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Masks by layer type, made by `generate` outside the compiled step."""
        return create_masks(
            config, inputs_embeds, attention_mask, past_key_values, position_ids, self.model.attention_bias
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        phase_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> EulerStackOutput:
        """Logits (batch, kept, vocab_size) and, with `labels` (batch, time; -100 is ignored), the next-token loss.

        `logits_to_keep` is a number of last positions (0: all) or the positions themselves; `num_items_in_batch` in
        `kwargs` makes the loss a sum over that many tokens, for gradient accumulation. With `phase_ids` (batch,
        time), the index of each token's phase or -1, tokens count by their phases' weights.
        Errors: ValueError for `phase_ids` where the spec has no phases.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(hidden_states[:, kept, :], None if self.lm_head is None else self.project)
        loss = None
        if labels is not None:
            # A head without a loss of its own has transformers' next-token loss.
            head_loss, token_loss, words = getattr(self.head, "loss", None), self.loss_function, kwargs
            if phase_ids is not None:
                if "execution_modes" not in (self.config.architecture or {}):
                    raise ValueError("phase_ids are given, but the spec of this model has no execution_modes")
                token_loss, words = self.phase_loss(), {**kwargs, "phase_ids": phase_ids}
            if head_loss is None:
                loss = token_loss(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **words)
            else:
                embeddings = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
                batch = {
                    "input_ids": input_ids,
                    "inputs_embeds": embeddings,
                    "attention_mask": attention_mask,
                    "position_ids": position_ids,
                }
                loss = head_loss(
                    logits,
                    labels,
                    token_loss,
                    hidden_states=hidden_states,
                    lm_head=None if self.lm_head is None else self.project,
                    batch=batch,
                    **words,
                )
        router_loss = outputs.router_loss
        if isinstance(loss, tuple):
            # A head that routes too.
            loss, routed = loss
            router_loss = routed if router_loss is None else router_loss + routed
        if labels is not None and router_loss is not None:
            total = kwargs.get("num_items_in_batch")
            if total is not None:
                # This part of an accumulated batch counts for its share of the tokens.
                router_loss = router_loss * ((labels[..., 1:] != -100).sum() / total)
            loss = loss + router_loss
        return EulerStackOutput(
            loss=loss,
            aux_loss=router_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
