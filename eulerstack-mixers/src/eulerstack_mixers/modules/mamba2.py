"""Mamba-2: a selective state space with one decay a head, computed in chunks by matrix products (SSD).

h_t = exp(Δ_t a) h_{t−1} + Δ_t x_t B_tᵀ; y_t = h_t C_t + D x_t; output W_out RMSNorm(y ⊙ silu(z)). Δ_t is a softplus,
and never below `dt_floor`.

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  conv (batch, d_conv − 1, d_inner + 2·n_groups·d_state) in the activations' dtype; ssm (batch, heads, head_dim,
        d_state) in float32; neither grows with time
Cost:   parameters d_model·(3·d_inner + 2·n_groups·d_state + heads) + d_conv·(d_inner + 2·n_groups·d_state) + 3·heads
        for d_inner = expand·d_model, heads = d_inner / head_dim, plus biases and d_inner for the norm
Source: Dao & Gu 2024, arXiv:2405.21060, sec. 6 (SSD) and 7 (the block)
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack_mixers.modules.mamba_parts import (
    NO_STEP,
    ShortConvolution,
    raw_step_sizes,
    reordered,
    tokens_first,
)

# Tokens of a chunk. Products within a chunk grow with it, states between chunks shrink; found by measuring.
CPU_CHUNK = 32
GPU_CHUNK = 64
KERNEL_CHUNK = 256


@cache
def chunk_scan_kernel() -> Any:
    """mamba-ssm's chunked scan; None where it doesn't import."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return None
    return mamba_chunk_scan_combined


class CarriedStates(torch.autograd.Function):
    """The states before each chunk, and the last: h_{c+1} = decays_c · h_c + increments_c.

    Shapes: increments (chunks, …, d_state, heads, head_dim), decays (chunks, …, 1, heads, 1), initial (…) -> states
    (chunks, …) and the last state (…)
    """

    @staticmethod
    def forward(ctx, increments, decays, initial):  # type: ignore[no-untyped-def]
        states = torch.empty_like(increments)
        last = initial.clone()
        for state, decay, increment in zip(states.unbind(0), decays.unbind(0), increments.unbind(0), strict=True):
            state.copy_(last)
            last = torch.addcmul(increment, decay, state)
        ctx.save_for_backward(decays, states)
        return states, last

    @staticmethod
    def backward(ctx, grad_states, grad_last):  # type: ignore[no-untyped-def]
        decays, states = ctx.saved_tensors
        grad_increments = torch.empty_like(states)
        grads = grad_last.clone()
        for increment, decay, state in zip(
            reversed(grad_increments.unbind(0)),
            reversed(decays.unbind(0)),
            reversed(grad_states.unbind(0)),
            strict=True,
        ):
            increment.copy_(grads)
            grads = torch.addcmul(state, decay, grads)
        grad_decays = (grad_increments * states).sum(dim=(-1, -3), keepdim=True)
        return grad_increments, grad_decays, grads


def chunked_scan(
    inputs: torch.Tensor,
    steps: torch.Tensor,
    rates: torch.Tensor,
    b_vectors: torch.Tensor,
    c_vectors: torch.Tensor,
    state: torch.Tensor,
    sequence_ids: torch.Tensor | None,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h_t C_t for all t, and the last state.

    Shapes: inputs x (batch, time, heads, head_dim); steps Δ (batch, time, heads); rates a (heads); B, C (batch, time,
    groups, d_state); state (batch, heads, head_dim, d_state); sequence_ids (batch, time) or None -> (batch, time,
    heads, head_dim) and a state. Below: b batch, c chunk, g group, h head of a group, i and j places in a chunk.
    """
    batch, time, n_heads, head_dim = inputs.shape
    n_groups, d_state = b_vectors.shape[-2:]
    chunk = min(chunk, time)
    missing = -time % chunk
    if missing:
        # Steps of zero: what fills up the last chunk changes no state.
        steps = nn.functional.pad(steps, (0, 0, 0, missing))
        inputs, b_vectors, c_vectors = (
            nn.functional.pad(each, (0, 0, 0, 0, 0, missing)) for each in (inputs, b_vectors, c_vectors)
        )
    heads = (n_groups, n_heads // n_groups)
    steps = steps.reshape(batch, -1, chunk, *heads).permute(0, 1, 3, 4, 2)  # b c g h i
    total = (steps * rates.view(*heads, 1)).cumsum(-1)  # logarithm of the decay since the chunk began
    values = (inputs.reshape(batch, -1, chunk, *heads, head_dim)).permute(0, 1, 3, 2, 4, 5)  # b c g i h p
    b_vectors = b_vectors.reshape(batch, -1, chunk, n_groups, d_state).transpose(2, 3)  # b c g i n
    c_vectors = c_vectors.reshape(batch, -1, chunk, n_groups, d_state).transpose(2, 3)

    future = torch.ones(chunk, chunk, dtype=torch.bool, device=inputs.device).triu(1)
    same_end = same_begin = None
    if sequence_ids is not None:
        ids = torch.cat((sequence_ids, sequence_ids[:, -1:].expand(-1, missing)), dim=1).reshape(batch, -1, chunk)
        future = future | (ids.unsqueeze(-1) != ids.unsqueeze(-2))[:, :, None, None]
        # What reaches a chunk's end, and what of the state before the chunk is still of the same sequence.
        before = torch.cat((ids[:, :1, 0], ids[:, :-1, -1]), dim=1)
        same_end = (ids == ids[..., -1:])[:, :, None, None]
        same_begin = (ids == before.unsqueeze(-1))[:, :, None, None]

    # Within a chunk: Y = ((C Bᵀ) ⊙ decay ⊙ Δ) X. The mask comes before exp, so no overflow is ever multiplied by 0.
    decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(future, -torch.inf).exp()
    scores = (c_vectors @ b_vectors.transpose(-1, -2)).unsqueeze(3) * decay * steps.unsqueeze(-2)  # b c g h i j
    outputs = (scores @ values.transpose(3, 4)).transpose(3, 4)  # b c g i h p

    # What a chunk adds to the state, the states before each chunk, and what tokens read from those.
    to_end = (total[..., -1:] - total).exp() * steps
    from_begin = total.exp()
    if same_end is not None and same_begin is not None:
        to_end, from_begin = to_end * same_end, from_begin * same_begin
    weighted = values * to_end.transpose(3, 4).unsqueeze(-1)
    increments = b_vectors.transpose(-1, -2) @ weighted.flatten(4)  # b c g n hp
    states, last = CarriedStates.apply(
        increments.unflatten(-1, (-1, head_dim)).transpose(0, 1),
        from_begin[..., -1].transpose(0, 1)[:, :, :, None, :, None],
        state.reshape(batch, *heads, head_dim, d_state).permute(0, 1, 4, 2, 3),
    )
    read = (c_vectors @ states.transpose(0, 1).flatten(4)).unflatten(-1, (-1, head_dim))
    outputs = torch.addcmul(outputs, read, from_begin.transpose(3, 4).unsqueeze(-1))
    outputs = outputs.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, n_heads, head_dim)
    return outputs[:, :time], last.permute(0, 1, 3, 4, 2).reshape(state.shape)


def scan_step(
    inputs: torch.Tensor,
    steps: torch.Tensor,
    rates: torch.Tensor,
    b_vectors: torch.Tensor,
    c_vectors: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`chunked_scan` of a single token, as the recurrence says it."""
    per_head = inputs.shape[2] // b_vectors.shape[2]
    b_vectors, c_vectors = (each[:, 0].repeat_interleave(per_head, dim=1) for each in (b_vectors, c_vectors))
    decay = (steps[:, 0] * rates)[..., None, None].exp()
    entering = (inputs * steps.unsqueeze(-1))[:, 0].unsqueeze(-1) * b_vectors.unsqueeze(-2)
    state = decay * state + entering
    return (state @ c_vectors.unsqueeze(-1)).squeeze(-1).unsqueeze(1), state


class GatedGroupNorm(nn.Module):
    """RMSNorm(x ⊙ silu(gate)) over each of several groups of channels, in float32 inside."""

    def __init__(self, width: int, groups: int, eps: float):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.empty(width))

    def initialize(self, initializer_range: float) -> None:
        initialization.ones_(self.weight)

    def forward(self, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        gated = (hidden_states * nn.functional.silu(gate)).unflatten(-1, (self.groups, -1))
        return nn.functional.rms_norm(gated, gated.shape[-1:], None, self.eps).flatten(-2) * self.weight.to(gated.dtype)


class Mamba2(nn.Module):
    """Selective state space, variant mamba2."""

    parameter_roles = {"out_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.d_inner = int(params["expand"] * config.hidden_size)
        self.head_dim, self.d_state, self.n_groups = params["head_dim"], params["d_state"], params["n_groups"]
        self.n_heads = self.d_inner // self.head_dim
        self.chunk_size = params["chunk_size"]
        self.smallest_step, self.largest_step = params["dt_min"], params["dt_max"]
        self.step_floor = params["dt_floor"]
        self.conv_width = self.d_inner + 2 * self.n_groups * self.d_state
        self.in_proj = nn.Linear(
            config.hidden_size, self.d_inner + self.conv_width + self.n_heads, bias=params["proj_bias"]
        )
        self.conv1d = ShortConvolution(self.conv_width, params["d_conv"], params["conv_bias"])
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.A_log = nn.Parameter(torch.empty(self.n_heads))
        self.D = nn.Parameter(torch.empty(self.n_heads))
        self.norm = GatedGroupNorm(self.d_inner, self.n_groups, params["norm_eps"]) if params["norm"] else None
        self.out_proj = nn.Linear(self.d_inner, config.hidden_size, bias=params["proj_bias"])

    def initialize(self, initializer_range: float) -> None:
        """a = −1 … −16 at random, D = 1, Δ between the two step sizes."""
        device = self.A_log.device
        initialization.copy_(self.A_log, torch.empty(self.n_heads, device=device).uniform_(1, 16).log())
        initialization.ones_(self.D)
        steps = raw_step_sizes(self.n_heads, self.smallest_step, self.largest_step, device)
        initialization.copy_(self.dt_bias, steps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        batch, time, _ = hidden_states.shape
        order = is_token = None
        if attention_mask is not None:
            order, is_token = tokens_first(attention_mask)
            hidden_states = reordered(hidden_states, order)
        if sequence_ids is not None:
            # One row of positions may stand for the whole batch.
            sequence_ids = sequence_ids.expand(hidden_states.shape[0], -1)
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]

        gate, convolved, steps = self.in_proj(hidden_states).split(
            (self.d_inner, self.conv_width, self.n_heads), dim=-1
        )
        previous = None if cache is None or self.conv1d.width == 1 else cache.get("conv")
        convolved, kept_inputs = self.conv1d(convolved, previous, is_token, sequence_ids)
        if is_token is not None:
            steps = steps.masked_fill(~is_token.unsqueeze(-1), NO_STEP)
        vectors_width = self.n_groups * self.d_state
        inputs, b_vectors, c_vectors = convolved.split((self.d_inner, vectors_width, vectors_width), dim=-1)
        inputs = inputs.view(batch, time, self.n_heads, self.head_dim)
        state = None if cache is None else cache.get("ssm")
        outputs, state = self.scan(
            inputs,
            steps,
            b_vectors.view(batch, time, self.n_groups, self.d_state),
            c_vectors.view(batch, time, self.n_groups, self.d_state),
            state,
            sequence_ids,
        )
        if cache is not None:
            if self.conv1d.width > 1:
                cache.put("conv", kept_inputs)
            cache.put("ssm", state)
            cache.advance(time)
        outputs = torch.addcmul(outputs, inputs.to(outputs.dtype), self.D.to(outputs.dtype).unsqueeze(-1)).flatten(2)
        gate = gate.to(outputs.dtype)
        outputs = outputs * nn.functional.silu(gate) if self.norm is None else self.norm(outputs, gate)
        if order is not None:
            outputs = torch.zeros_like(outputs).scatter(1, order.unsqueeze(-1).expand_as(outputs), outputs)
        return self.out_proj(outputs.to(hidden_states.dtype))

    def scan(
        self,
        inputs: torch.Tensor,
        steps: torch.Tensor,
        b_vectors: torch.Tensor,
        c_vectors: torch.Tensor,
        state: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """h_t C_t (batch, time, heads, head_dim) and the last state, by the fastest way there is."""
        # At least float32: a decay near 1 can't be told from 1 in half precision.
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        rates, bias = -self.A_log.to(dtype).exp(), self.dt_bias.to(dtype)
        kernel = chunk_scan_kernel() if self.takes_kernel(inputs) else None
        if kernel is not None:
            # Scores are as wide as a chunk, however few tokens there are.
            short = max(KERNEL_CHUNK, 1 << (inputs.shape[1] - 1).bit_length())
            kernel_chunk = min(self.chunk_size or KERNEL_CHUNK, short)
            outputs, last = kernel(
                inputs,
                steps.to(inputs.dtype),
                rates,
                b_vectors,
                c_vectors,
                kernel_chunk,
                dt_bias=bias,
                dt_softplus=True,
                initial_states=state,
                seq_idx=None if sequence_ids is None else sequence_ids.to(torch.int32),
                return_final_states=True,
            )
            return outputs.to(dtype), last.to(dtype)

        raw_steps, steps = steps, nn.functional.softplus(steps.to(dtype) + bias)
        if self.step_floor:
            # Padding takes no step at all.
            steps = steps.clamp(min=self.step_floor).masked_fill(raw_steps == NO_STEP, 0.0)
        inputs, b_vectors, c_vectors = inputs.to(dtype), b_vectors.to(dtype), c_vectors.to(dtype)
        if state is None:
            state = inputs.new_zeros(inputs.shape[0], self.n_heads, self.head_dim, self.d_state)
        if inputs.shape[1] == 1:
            return scan_step(inputs, steps, rates, b_vectors, c_vectors, state)
        chunk = self.chunk_size or (GPU_CHUNK if inputs.is_cuda else CPU_CHUNK)
        return chunked_scan(inputs, steps, rates, b_vectors, c_vectors, state, sequence_ids, chunk)

    def takes_kernel(self, inputs: torch.Tensor) -> bool:
        """Whether mamba-ssm's kernel computes this call, where it imports: on CUDA, several tokens, not compiling.

        It knows chunks of 16, 32, 64, … tokens, and its floor holds for padding too. It multiplies float32 in tf32, as
        PyTorch does only where it is told to.
        """
        if not inputs.is_cuda or torch.compiler.is_compiling() or inputs.shape[1] == 1 or self.step_floor:
            return False
        chunk = self.chunk_size or KERNEL_CHUNK
        if chunk < 16 or chunk & (chunk - 1) or inputs.dtype == torch.float64:
            return False
        return inputs.dtype != torch.float32 or torch.backends.cuda.matmul.fp32_precision == "tf32"
