"""What is noted while a Trainer trains: losses, gradients, which experts work, how long a step takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from eulerstack.compiler.progress import report
from eulerstack.sanity.report import ExpertLoad


class Watcher(TrainerCallback):
    """Notes what a `Report` says. A Trainer must log every step for it."""

    def __init__(self, model: nn.Module, steps: int):
        self.steps, self.done = steps, 0
        self.losses: list[float] = []
        self.gradient_norms: list[float] = []
        self.seconds: list[float] = []
        self.without_gradient = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.loads: dict[str, torch.Tensor] = {}
        # A mixture of experts, ours or a plugin's, has a `router` beside its `experts`, whose last output is the chosen
        # experts' numbers.
        for name, module in model.named_modules():
            if isinstance(getattr(module, "router", None), nn.Module) and hasattr(module, "experts"):
                self._watch_router(name, module.router)

    def _watch_router(self, name: str, router: Any) -> None:
        self.loads[name] = torch.zeros(router.n_experts, dtype=torch.long)

        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            if module.training and 2 * self.done >= self.steps:
                chosen = output[-1].detach().flatten()
                self.loads[name] += torch.bincount(chosen, minlength=len(self.loads[name])).cpu()

        router.register_forward_hook(count)

    def on_step_begin(self, *given: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_pre_optimizer_step(self, *given: Any, **kwargs: Any) -> None:
        """Strikes out parameters that have a gradient."""
        for name in [name for name, p in self.without_gradient.items() if p.grad is not None and bool(p.grad.any())]:
            del self.without_gradient[name]

    def on_step_end(self, *given: Any, **kwargs: Any) -> None:
        """Stops the clock, when the device has done its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)
        self.done += 1
        report(self.done, self.steps)

    def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        """Keeps the loss and the gradient norm of a step."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            if "grad_norm" in logs:
                self.gradient_norms.append(float(logs["grad_norm"]))

    def seconds_of_a_step(self) -> float:
        """The median, without the first step, which warms up."""
        return statistics.median(self.seconds[1:] or self.seconds)

    def expert_loads(self) -> tuple[ExpertLoad, ...]:
        """One for each router that was used."""
        return tuple(
            ExpertLoad(
                name,
                len(load),
                float(load.max() * len(load) / load.sum()),
                tuple(int(number) for number in (load == 0).nonzero().flatten()),
            )
            for name, load in self.loads.items()
            if load.sum()
        )
