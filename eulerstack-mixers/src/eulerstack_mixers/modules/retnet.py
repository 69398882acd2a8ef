"""Multi-scale retention: a linear recurrence with a fixed decay a head, in its parallel, chunkwise and recurrent forms.

S_n = γ_h S_{n-1} + k_nᵀ v_n, o_n = q_n S_n, γ_h = 1 − 2^(−5−h); output (swish(x W_G) ⊙ GroupNorm_h(o)) W_O

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  S, (batch, n_heads, d_key, d_value) in float32; its size does not grow with time
Cost:   parameters d_model·(d_key·(n_heads + n_kv_heads) + d_value·(n_kv_heads + 2·n_heads)), one n_heads fewer without
        the gate; d_key is head_dim, d_value is value_factor·head_dim
Source: Sun et al. 2023, arXiv:2307.08621, eq. 5–8; rotation: Sun et al. 2022 (xPos), arXiv:2212.10554
"""

from functools import cache
from typing import Any

import torch
from torch import nn

from eulerstack_mixers.modules.positions_rope import apply_rotary

# fla takes log(1 − 2^(−5−h)) in float32, which is 0 from the 21st head on.
FLA_RETENTION_HEADS = 20


@cache
def fla_retention() -> Any:
    """fla's `chunk_retention`, or None where it can't be imported."""
    try:
        from fla.ops.retention import chunk_retention
    # An installation without a matching triton or driver fails in its own ways, and PyTorch computes the same.
    except Exception:
        return None
    return chunk_retention


def retention_decays(num_heads: int, dtype: torch.dtype, device: Any) -> torch.Tensor:
    """log γ_h, (heads); never in less than float32, where γ would round to 1."""
    heads = torch.arange(num_heads, dtype=dtype, device=device)
    return torch.log1p(-torch.exp2(-5.0 - heads))


def xpos_rotation(
    position_ids: torch.Tensor, width: int, theta: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin for `apply_rotary`, (batch, time, width): neighbouring channels, frequencies theta^0 … theta^-1.

    The scale of xPos is γ^n here: it is the decay of the retention itself, one a head, and enters nowhere else.
    """
    exponents = torch.linspace(0, 1, width // 2, dtype=dtype, device=position_ids.device)
    angles = position_ids[..., None].to(dtype) * theta**-exponents
    cos, sin = angles.cos(), angles.sin()
    return cos.repeat_interleave(2, dim=-1), torch.stack((-sin, sin), dim=-1).flatten(-2)


def retention_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    state: torch.Tensor | None,
    kept: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrent form, for one token.

    Shapes: query, key (batch, heads, 1, d_key); value (batch, heads, 1, d_value); log_decay (heads); state (batch,
    heads, d_key, d_value) or None; kept (batch, 1) of 0 and 1, or None -> output (batch, heads, 1, d_value) and state.
    """
    added = key.transpose(-1, -2) * value
    if state is not None:
        exponent = log_decay if kept is None else log_decay * kept
        added = added + exponent.exp()[..., None, None] * state
    return query @ added, added


def retention_chunks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_decay: torch.Tensor,
    state: torch.Tensor | None,
    chunk_size: int | None,
    kept: torch.Tensor | None = None,
    borders: torch.Tensor | None = None,
    wants_state: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The chunkwise form; one chunk (`chunk_size` None) is the parallel form.

    Shapes: query, key (batch, heads, time, d_key); value (batch, heads, time, d_value); log_decay (heads); state
    (batch, heads, d_key, d_value) or None; kept (batch, time) of 0 and 1: 0 where time stands still; borders (batch,
    time): true where a new sequence begins; both None where there is nothing to say -> output (batch, heads, time,
    d_value), and the state after the last token (None unless wanted).
    """
    time = query.shape[2]
    chunk = time if chunk_size is None else min(chunk_size, time)
    whole = time // chunk * chunk
    if whole < time:
        # What is left over is a shorter chunk after all the others.
        outputs = []
        for part, wanted in ((slice(0, whole), True), (slice(whole, time), wants_state)):
            output, state = retention_chunks(
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                log_decay,
                state,
                chunk,
                None if kept is None else kept[:, part],
                None if borders is None else borders[:, part],
                wanted,
            )
            outputs.append(output)
        return torch.cat(outputs, dim=2), state

    chunks = time // chunk
    query, key, value = (states.unflatten(2, (chunks, chunk)) for states in (query, key, value))
    # Everything below counts from the beginning of a chunk: steps are the tokens passed, the present one included.
    # (batch or 1, chunks or 1, chunk)
    if kept is None:
        steps = torch.arange(1, chunk + 1, dtype=log_decay.dtype, device=query.device)[None, None]
    else:
        steps = kept.to(log_decay.dtype).unflatten(1, (chunks, chunk)).cumsum(-1)
    segments = None if borders is None else borders.unflatten(1, (chunks, chunk)).long().cumsum(-1)

    visible = torch.ones(chunk, chunk, dtype=torch.bool, device=query.device).tril()
    if segments is not None:
        visible = visible & (segments[..., :, None] == segments[..., None, :]).unsqueeze(1)
    distances = (steps[..., :, None] - steps[..., None, :]).unsqueeze(1)
    decays = torch.exp(distances * log_decay[:, None, None, None]).masked_fill(~visible, 0.0)
    output = (query @ key.transpose(-1, -2) * decays) @ value

    # What each chunk leaves behind; the last one's is left out where nobody asks for it.
    leaving = chunks if wants_state else chunks - 1
    to_end = torch.exp((steps[..., -1:] - steps).unsqueeze(1) * log_decay[:, None, None])
    from_start = torch.exp(steps.unsqueeze(1) * log_decay[:, None, None])
    if segments is not None:
        to_end = to_end * (segments == segments[..., -1:]).unsqueeze(1)
        from_start = from_start * (segments == 0).unsqueeze(1)
    added = ((key * to_end.unsqueeze(-1))[:, :, :leaving]).transpose(-1, -2) @ value[:, :, :leaving]
    passed = from_start[..., -1].expand(-1, -1, chunks)[..., None, None]
    befores = [] if state is None else [state]
    for index in range(leaving):
        state = added[:, :, index] if state is None else passed[:, :, index] * state + added[:, :, index]
        befores.append(state)
    # Chunks that see a state are all but perhaps the first.
    seeing = befores[: len(befores) - 1] if wants_state else befores
    if seeing:
        first = chunks - len(seeing)
        read = (query * from_start.unsqueeze(-1))[:, :, first:] @ torch.stack(seeing, dim=2)
        output = torch.cat((output[:, :, :first], output[:, :, first:] + read), dim=2)
    return output.flatten(2, 3), state if wants_state else None


class Retention(nn.Module):
    """A retention layer. Several tokens take the chunkwise or the parallel form, a cached single one the recurrent."""

    parameter_roles = {"o_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.key_dim = config.head_dim
        self.value_dim = round(params["value_factor"] * config.head_dim)
        self.scaling = self.key_dim**-0.5
        self.chunk_size = params["chunk_size"] if params["chunkwise"] else None
        self.rotates = params["rope"]
        self.theta = config.architecture["position"]["params"].get("rope_theta", 10000.0)
        self.eps = config.architecture["model"]["norm_eps"]
        value_width = self.num_heads * self.value_dim
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.key_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.key_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.value_dim, bias=False)
        self.g_proj = nn.Linear(config.hidden_size, value_width, bias=False) if params["gate"] else None
        self.o_proj = nn.Linear(value_width, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: Any = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        input_shape = hidden_states.shape[:-1]
        query = self.q_proj(hidden_states).view(*input_shape, -1, self.key_dim)
        key = self.k_proj(hidden_states).view(*input_shape, -1, self.key_dim)
        value = self.v_proj(hidden_states).view(*input_shape, -1, self.value_dim)
        projected, precise = query.dtype, torch.promote_types(query.dtype, torch.float32)
        # (batch, heads, time, width)
        query, key, value = (states.transpose(1, 2).to(precise) for states in (query, key, value))

        layer = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        if self.rotates:
            if position_ids is None:
                past = 0 if layer is None else layer.get_seq_length()
                position_ids = (torch.arange(input_shape[1], device=hidden_states.device) + past)[None]
            rotation = xpos_rotation(position_ids, self.key_dim, self.theta, precise)
            query = apply_rotary(query, *rotation, interleaved=True)
            key = apply_rotary(key, *rotation, interleaved=True)
        key = key * self.scaling
        if attention_mask is not None:
            # A token that is padding adds nothing, and time stands still at it.
            value = value * attention_mask[:, None, :, None].to(precise)
        if self.num_key_value_groups > 1:
            key = key.repeat_interleave(self.num_key_value_groups, dim=1)
            value = value.repeat_interleave(self.num_key_value_groups, dim=1)

        state = None if layer is None else layer.get("state")
        # Autocast would multiply in 16 bits, where a state that grows over many tokens loses the small ones.
        with torch.autocast(hidden_states.device.type, enabled=False):
            output, state = self.retain(
                query, key, value, state, attention_mask, sequence_ids, layer is not None, projected
            )
        if layer is not None:
            layer.put("state", state)
            layer.advance(input_shape[1])
        # GroupNorm with a group a head; the projection that follows would absorb a weight of its own.
        output = nn.functional.layer_norm(output.transpose(1, 2), (self.value_dim,), eps=self.eps)
        output = output.flatten(-2).to(hidden_states.dtype)
        if self.g_proj is not None:
            output = output * nn.functional.silu(self.g_proj(hidden_states))
        return self.o_proj(output)

    def retain(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        state: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
        wants_state: bool,
        projected: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The retention of rotated and scaled heads, in the form that fits.

        Shapes: query, key (batch, heads, time, d_key), value (batch, heads, time, d_value), state (batch, heads, d_key,
        d_value) or None, attention_mask and sequence_ids (batch, time) or None -> output like value, state or None.
        `projected` is the dtype that the projections computed in.
        """
        if self.takes_kernel(query, attention_mask, sequence_ids, projected):
            states = (states.transpose(1, 2).to(projected).contiguous() for states in (query, key, value))
            output, final = fla_retention()(*states, scale=1.0, initial_state=state, output_final_state=wants_state)
            return output.transpose(1, 2).to(query.dtype), None if final is None else final.to(query.dtype)
        log_decay = retention_decays(self.num_heads, query.dtype, query.device)
        if wants_state and query.shape[2] == 1:
            return retention_step(query, key, value, log_decay, state, attention_mask)
        borders = None
        if sequence_ids is not None:
            borders = torch.diff(sequence_ids, dim=-1, prepend=sequence_ids[:, :1]) != 0
        return retention_chunks(
            query, key, value, log_decay, state, self.chunk_size, attention_mask, borders, wants_state
        )

    def takes_kernel(
        self,
        query: torch.Tensor,
        attention_mask: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
        projected: torch.dtype,
    ) -> bool:
        """Whether fla's kernel computes this call: on CUDA, in 16 bits, several tokens, no padding, nothing packed.

        In float32 the kernel multiplies in tf32, which is another precision than was asked for; its backward pass takes
        no odd widths; and it can't be part of a compiled graph.
        """
        if not query.is_cuda or query.shape[2] == 1 or sequence_ids is not None or torch.compiler.is_compiling():
            return False
        if projected not in (torch.bfloat16, torch.float16) or self.num_heads > FLA_RETENTION_HEADS:
            return False
        if self.key_dim % 2 or self.value_dim % 2:
            return False
        return fla_retention() is not None and (attention_mask is None or bool(attention_mask.all()))
