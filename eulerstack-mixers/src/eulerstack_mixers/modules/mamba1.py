"""Mamba-1: a selective state space with a decay of its own for every channel and state.

h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t x_t; y_t = C_t h_t + D x_t; output W_out (y ⊙ silu(z)).

Shapes: hidden_states (batch, time, d_model) -> (batch, time, d_model)
State:  conv (batch, d_conv − 1, d_inner) in the activations' dtype; ssm (batch, d_inner, d_state) in float32; neither
        grows with time
Cost:   parameters d_inner·(3·d_model + d_conv + 2·dt_rank + 3·d_state + 2) for d_inner = expand·d_model, plus biases
        and norms; memory of training grows by the inputs alone, states are kept at the chunks' borders
Source: Gu & Dao 2023, arXiv:2312.00752, alg. 2; norms on B, C and Δ: Jamba, arXiv:2403.19887, sec. 6.4, and Falcon
        Mamba, arXiv:2410.05355
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import initialization

from eulerstack.hf.matrices import matrix_of
from eulerstack_mixers.modules.mamba_parts import (
    NO_STEP,
    ShortConvolution,
    TimeStepProjection,
    reordered,
    tokens_first,
)
from eulerstack_mixers.modules.norms import RMSNorm

# Tokens whose decays are computed at once: few, so that they stay in the processor's cache.
SCAN_CHUNK = 32
# As many states as mamba-ssm's scan takes.
KERNEL_STATES = 256


@cache
def selective_scan_kernel() -> Any:
    """mamba-ssm's selective scan; None where it doesn't import."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn


def run_states(decays: torch.Tensor, states: torch.Tensor, initial: torch.Tensor) -> None:
    """Turns the increments in `states` into states in place, h_t = decays_t ⊙ h_{t−1} + increments_t.

    Shapes: decays, states (time, …); initial (…)
    """
    previous = initial
    for decay, state in zip(decays.unbind(0), states.unbind(0), strict=True):
        previous = state.addcmul_(decay, previous)


class SelectiveScan(torch.autograd.Function):
    """y_t = Σ_n C_tn h_tn with h_t = carry_t · exp(Δ_t A) ⊙ h_{t−1} + B_t ⊗ inputs_t, chunk by chunk.

    Shapes: steps Δ, inputs (time, batch, channels); rates A (d_state, channels); B, C (time, batch, d_state); carry
    (time, batch) of 0 and 1, or None; initial (batch, d_state, channels) -> y (time, batch, channels) and the last
    state. Nothing is ever divided by a decay; the backward pass computes each chunk's states again.
    """

    @staticmethod
    def forward(ctx, steps, inputs, rates, b_vectors, c_vectors, carry, initial, chunk):  # type: ignore[no-untyped-def]
        outputs = torch.empty_like(inputs)
        borders = []
        state = initial
        for begin in range(0, inputs.shape[0], chunk):
            part = slice(begin, min(begin + chunk, inputs.shape[0]))
            borders.append(state)
            decays = SelectiveScan.decays(steps[part], rates, None if carry is None else carry[part])
            states = b_vectors[part].unsqueeze(-1) * inputs[part].unsqueeze(-2)
            run_states(decays, states, state)
            outputs[part] = (c_vectors[part].unsqueeze(-2) @ states).squeeze(-2)
            state = states[-1].clone()
        ctx.chunk = chunk
        ctx.save_for_backward(steps, inputs, rates, b_vectors, c_vectors, carry, torch.stack(borders))
        return outputs, state

    @staticmethod
    def decays(steps: torch.Tensor, rates: torch.Tensor, carry: torch.Tensor | None) -> torch.Tensor:
        """exp(Δ A), 0 where a packed sequence begins. (time, batch, d_state, channels)"""
        decays = (steps.unsqueeze(-2) * rates).exp_()
        return decays if carry is None else decays.mul_(carry[..., None, None])

    @staticmethod
    def backward(ctx, grad_outputs, grad_state):  # type: ignore[no-untyped-def]
        steps, inputs, rates, b_vectors, c_vectors, carry, borders = ctx.saved_tensors
        grad_steps, grad_inputs = torch.empty_like(steps), torch.empty_like(inputs)
        grad_b, grad_c = torch.empty_like(b_vectors), torch.empty_like(c_vectors)
        grad_rates = torch.zeros_like(rates)
        grad_state = grad_state.clone()
        for index in reversed(range(borders.shape[0])):
            begin = index * ctx.chunk
            part = slice(begin, min(begin + ctx.chunk, inputs.shape[0]))
            decays = SelectiveScan.decays(steps[part], rates, None if carry is None else carry[part])
            # One place more than there are tokens: states[t] comes before token t, states[t + 1] after it.
            states = inputs.new_empty(decays.shape[0] + 1, *decays.shape[1:])
            states[0] = borders[index]
            torch.mul(b_vectors[part].unsqueeze(-1), inputs[part].unsqueeze(-2), out=states[1:])
            run_states(decays, states[1:], states[0])
            grad_outputs_here = grad_outputs[part]
            grad_c[part] = (states[1:] @ grad_outputs_here.unsqueeze(-1)).squeeze(-1)
            # Backwards the same recurrence: a state's gradient is its output's, plus the next one's times its decay.
            grads = c_vectors[part].unsqueeze(-1) * grad_outputs_here.unsqueeze(-2)
            grad_views, decay_views = grads.unbind(0), decays.unbind(0)
            grad_views[-1].add_(grad_state)
            for time in range(len(grad_views) - 2, -1, -1):
                grad_views[time].addcmul_(decay_views[time + 1], grad_views[time + 1])
            grad_state = decay_views[0] * grad_views[0]
            grad_inputs[part] = (b_vectors[part].unsqueeze(-2) @ grads).squeeze(-2)
            grad_b[part] = (grads @ inputs[part].unsqueeze(-1)).squeeze(-1)
            grads.mul_(states[:-1]).mul_(decays)
            grad_rates += torch.einsum("tbnd,tbd->nd", grads, steps[part])
            grad_steps[part] = torch.einsum("tbnd,nd->tbd", grads, rates)
        return grad_steps, grad_inputs, grad_rates, grad_b, grad_c, None, grad_state, None


def selective_scan(
    inputs: torch.Tensor,
    steps: torch.Tensor,
    rates: torch.Tensor,
    b_vectors: torch.Tensor,
    c_vectors: torch.Tensor,
    carry: torch.Tensor | None,
    state: torch.Tensor,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`SelectiveScan` with the batch in front: C_t h_t (batch, time, channels) and the last state.

    Shapes: inputs Δ ⊙ x, steps Δ (batch, time, channels); rates A (channels, d_state); B, C (batch, time, d_state);
    carry (time, batch) or None; state (batch, channels, d_state).
    """
    outputs, state = SelectiveScan.apply(
        *(each.transpose(0, 1).contiguous() for each in (steps, inputs)),
        rates.t().contiguous(),
        *(each.transpose(0, 1).contiguous() for each in (b_vectors, c_vectors)),
        carry,
        state.transpose(1, 2).contiguous(),
        chunk,
    )
    return outputs.transpose(0, 1), state.transpose(1, 2)


class StateOfKernel(torch.autograd.Function):
    """The last state that mamba-ssm's scan returns, with the gradient that it leaves out.

    Shapes: state (batch, channels, d_state); as the kernel has them, inputs x and raw steps (batch, channels, time),
    rates A (channels, d_state), bias (channels), B (batch, d_state, time) -> state. The backward pass scans again.
    """

    @staticmethod
    def forward(ctx, state, inputs, steps, rates, bias, b_vectors):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inputs, steps, rates, bias, b_vectors)
        return state.clone()

    @staticmethod
    def backward(ctx, grad_state):  # type: ignore[no-untyped-def]
        with torch.enable_grad():
            given = [each.detach().requires_grad_() for each in ctx.saved_tensors]
            inputs, steps, rates, bias, b_vectors = given
            steps = nn.functional.softplus(steps.to(rates.dtype) + bias.unsqueeze(-1)).transpose(1, 2)
            b_vectors = b_vectors.to(rates.dtype).transpose(1, 2)
            start = torch.zeros_like(grad_state)
            # C is for the outputs, which nobody reads here.
            _, state = selective_scan(
                steps * inputs.transpose(1, 2), steps, rates, b_vectors, b_vectors.detach(), None, start, SCAN_CHUNK
            )
            return None, *torch.autograd.grad(state, given, grad_state)


class Mamba1(nn.Module):
    """Selective state space, variant mamba1."""

    parameter_roles = {"out_proj.weight": "output"}

    def __init__(self, config: Any, params: dict[str, Any], layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.d_inner = int(params["expand"] * config.hidden_size)
        self.d_state, self.dt_rank = params["d_state"], params["dt_rank"]
        self.chunk_size = params["chunk_size"]
        self.inner_norm, self.norm_eps = params["bcdt_norm"], params["norm_eps"]
        self.in_proj = nn.Linear(config.hidden_size, 2 * self.d_inner, bias=params["proj_bias"])
        self.conv1d = ShortConvolution(self.d_inner, params["d_conv"], params["conv_bias"])
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * self.d_state, bias=False)
        self.dt_proj = TimeStepProjection(self.dt_rank, self.d_inner, params["dt_min"], params["dt_max"])
        self.A_log = nn.Parameter(torch.empty(self.d_inner, self.d_state))
        self.D = nn.Parameter(torch.empty(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, config.hidden_size, bias=params["proj_bias"])
        if self.inner_norm == "learned":
            norm = {"eps": self.norm_eps, "zero_centered": False}
            self.dt_norm = RMSNorm(self.dt_rank, norm)
            self.b_norm, self.c_norm = RMSNorm(self.d_state, norm), RMSNorm(self.d_state, norm)

    def initialize(self, initializer_range: float) -> None:
        """A = −1 … −d_state in every channel (S4D-real), D = 1."""
        rates = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=self.A_log.device)
        initialization.copy_(self.A_log, rates.log().expand(self.d_inner, -1))
        initialization.ones_(self.D)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        sequence_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        time = hidden_states.shape[1]
        order = is_token = None
        if attention_mask is not None:
            order, is_token = tokens_first(attention_mask)
            hidden_states = reordered(hidden_states, order)
        if sequence_ids is not None:
            # One row of positions may stand for the whole batch.
            sequence_ids = sequence_ids.expand(hidden_states.shape[0], -1)
        cache = None if past_key_values is None else past_key_values.layers[self.layer_idx]

        inputs, gate = self.in_proj(hidden_states).chunk(2, dim=-1)
        previous = None if cache is None or self.conv1d.width == 1 else cache.get("conv")
        inputs, kept_inputs = self.conv1d(inputs, previous, is_token, sequence_ids)
        steps, b_vectors, c_vectors = self.selected(inputs)
        if is_token is not None:
            steps = steps.masked_fill(~is_token.unsqueeze(-1), NO_STEP)
        state = None if cache is None else cache.get("ssm")
        outputs, state = self.scan(inputs, steps, b_vectors, c_vectors, state, sequence_ids)
        if cache is not None:
            if self.conv1d.width > 1:
                cache.put("conv", kept_inputs)
            cache.put("ssm", state)
            cache.advance(time)
        outputs = (outputs + inputs * self.D.to(outputs.dtype)) * nn.functional.silu(gate.to(outputs.dtype))
        if order is not None:
            outputs = torch.zeros_like(outputs).scatter(1, order.unsqueeze(-1).expand_as(outputs), outputs)
        return self.out_proj(outputs.to(hidden_states.dtype))

    def selected(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the inputs select: Δ before bias and softplus, (batch, time, d_inner); B, C (batch, time, d_state)."""
        steps, b_vectors, c_vectors = self.x_proj(inputs).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        if self.inner_norm == "learned":
            steps, b_vectors, c_vectors = self.dt_norm(steps), self.b_norm(b_vectors), self.c_norm(c_vectors)
        elif self.inner_norm == "weightless":
            steps, b_vectors, c_vectors = (
                nn.functional.rms_norm(each, each.shape[-1:], None, self.norm_eps)
                for each in (steps, b_vectors, c_vectors)
            )
        return nn.functional.linear(steps, matrix_of(self.dt_proj, steps.dtype)), b_vectors, c_vectors

    def scan(
        self,
        inputs: torch.Tensor,
        steps: torch.Tensor,
        b_vectors: torch.Tensor,
        c_vectors: torch.Tensor,
        state: torch.Tensor | None,
        sequence_ids: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """C_t h_t (batch, time, d_inner) and the last state (batch, d_inner, d_state), by the fastest way there is."""
        # At least float32: a decay near 1 can't be told from 1 in half precision.
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        rates, bias = -self.A_log.to(dtype).exp(), self.dt_proj.bias.to(dtype)
        if state is None and sequence_ids is None and inputs.is_cuda and not torch.compiler.is_compiling():
            fits = dtype == torch.float32 and self.d_state <= KERNEL_STATES
            kernel = selective_scan_kernel() if fits else None
            if kernel is not None:
                values, raw_steps, b_rows, c_rows = (
                    each.to(inputs.dtype).transpose(1, 2).contiguous() for each in (inputs, steps, b_vectors, c_vectors)
                )
                outputs, last = kernel(
                    values, raw_steps, rates, b_rows, c_rows,
                    delta_bias=bias, delta_softplus=True, return_last_state=True,
                )  # fmt: skip
                last = StateOfKernel.apply(last.detach(), values, raw_steps, rates, bias, b_rows)
                return outputs.transpose(1, 2).to(dtype), last

        steps = nn.functional.softplus(steps.to(dtype) + bias)
        inputs, b_vectors, c_vectors = steps * inputs, b_vectors.to(dtype), c_vectors.to(dtype)
        if state is None:
            state = inputs.new_zeros(inputs.shape[0], self.d_inner, self.d_state)
        if inputs.shape[1] == 1:
            state = (steps[:, 0, :, None] * rates).exp() * state + inputs[:, 0, :, None] * b_vectors
            return (state @ c_vectors.transpose(1, 2)).transpose(1, 2), state
        carry = None
        if sequence_ids is not None:
            before = nn.functional.pad(sequence_ids, (1, 0), value=0)[:, :-1]
            carry = (sequence_ids == before).to(dtype).t()
        return selective_scan(inputs, steps, rates, b_vectors, c_vectors, carry, state, self.chunk_size or SCAN_CHUNK)
