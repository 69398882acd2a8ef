"""`EulerStackConfig`: the IR as JSON, beside the names that the ecosystem reads."""

from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from eulerstack.hf.cache import register_layer
from eulerstack.hf.ecosystem import FREE_FIELDS, ecosystem_fields
from eulerstack.hf.gated_cache import register_gated_layer
from eulerstack.hf.origin import carry_origin
from eulerstack.hf.slots import owners_of_slots
from eulerstack.hf.tables import ByName

# Who teaches caches the types of layers that something is wrapped around, by the spec's word for it.
WRAPPED_LAYERS: ByName = {
    "depth_gating": register_gated_layer,
}


@strict
class EulerStackConfig(PreTrainedConfig):
    """Configuration of a compiled spec.

    `architecture` is the complete IR and the only thing the model is built from; every other field repeats a part of it
    under the name that other tools expect. `layer_types` names the kind of each cache slot, and with it its mask; a
    layer may have several. `tensor_parallel_plan` says how matrices may be split; `tissue` maps columns of templates to
    layers. `transition_token_id` is the id of what ends a phase. `v1_extensions` holds what the spec said in reserved
    namespaces, and its phases.

    Errors: ValueError when a repeated field was changed so that it contradicts `architecture`.
    """

    model_type = "eulerstack"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"n_layers": "num_hidden_layers"}
    base_model_pp_plan: ClassVar[dict[str, Any] | None] = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    architecture: dict | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    initializer_range: float = 0.02
    rms_norm_eps: float | None = None
    hidden_act: str | None = None
    attention_dropout: float = 0.0
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    transition_token_id: int | None = None
    tie_word_embeddings: bool = True
    tensor_parallel_plan: dict | None = None
    tissue: dict | None = None
    v1_extensions: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        head = (self.architecture or {}).get("head", {})
        for layer_type in {*(self.layer_types or ()), *head.get("layer_types", ())}:
            register_layer(layer_type)
            for register in WRAPPED_LAYERS.values():
                register(layer_type)
        # transformers reads the plan under this name, and never writes it to config.json.
        self.base_model_tp_plan = self.tensor_parallel_plan
        super().__post_init__(**kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with the spec that the model was compiled from: see `carry_origin`."""
        # Written first, because transformers uploads what its own method finds.
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        carry_origin(self, save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def validate_layer_type(self) -> None:
        """Replaces transformers' check, which knows only its own layer types, and one of them a layer."""
        if self.layer_types is None or self.architecture is None:
            return
        slots = len(owners_of_slots(self.architecture))
        if len(self.layer_types) != slots:
            raise ValueError(f"{len(self.layer_types)} layer_types for {slots} cache slots")

    @property
    def per_layer_config(self) -> list[Any]:
        """What transformers makes the layers of a cache from: this config for each slot, however many a layer has."""
        return [self] * len(self.layer_types or ())

    @property
    def num_stages(self) -> int:
        """What the stack runs one after another: a hidden state is recorded of each."""
        return len((self.architecture or {})["layers"])

    def verify(self) -> None:
        """Raises a ValueError when a field disagrees with `architecture`, so that no override is silently ignored."""
        if self.architecture is None:
            raise ValueError("this config has no `architecture`; compile a spec to get one")
        for name, expected in ecosystem_fields(self.architecture).items():
            actual = getattr(self, name, None)
            if name not in FREE_FIELDS and actual != expected:
                raise ValueError(
                    f"config.{name} is {actual!r}, but the architecture says {expected!r}: "
                    "change spec.yml and compile it again"
                )
