"""What `training_hints` say about training, in the form that torch and a transformers Trainer take.

    model = AutoModelForCausalLM.from_pretrained("./my_model", trust_remote_code=True)
    arguments = TrainingArguments("./run", **training_arguments(model))
    trainer = Trainer(model, arguments, optimizers=(create_optimizer(model), None), …)

Everything follows from the config and the modules, so it holds for a compiled model, a loaded export and one that a
training program has wrapped.

Learning rates under µP, for m = d_model / base_width: AdamW's divided by m for hidden matrices, routers and probes,
whose decay is multiplied by m so that both together stay; Muon's as the table `_muon_width_factor` says; all others as
ever.

Source: Yang et al. 2022, arXiv:2203.03466, table 8; Muon: Jordan et al. 2024; its sizes: Liu et al. 2025,
        arXiv:2502.16982, and the spectral condition of Yang et al. 2023, arXiv:2310.17813
"""

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from eulerstack.hf.initial_weights import uses_mup, width_multiplier
from eulerstack.hf.roles import HIDDEN_ROLES, MATRIX_ROLES, parameter_roles

# Decayed with the others, but vectors to Muon: tables of which one row is used at a time.
TABLE_ROLES = frozenset({"embedding", "readout"})
# Matrices whose inputs alone grow with the width.
FEW_OUTPUTS = frozenset({"router", "probe"})


def compiled_model(model: nn.Module) -> nn.Module:
    """The EulerStack model inside what a training program may have wrapped around it.

    Errors: ValueError when there is none.
    """
    for module in model.modules():
        # Some wrappers pass on what is asked of them, their parameters' names are others.
        if isinstance(module, PreTrainedModel) and getattr(module.config, "architecture", None) is not None:
            return module
    raise ValueError("this is no EulerStack model: its config has no architecture")


def optimizer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups as `training_hints` say, for any optimizer of torch's kind.

    Each holds `params`, `lr`, `weight_decay`, `role`, and `optimizer`, "adamw" (with `betas`) or "muon" (with its own
    words); AdamW's come first. Every trainable parameter is in one group, in the model's order.

    Errors: ValueError for an entry of `optimizer_groups` that no parameter fits, and for a `router_lr_multiplier` where
    there is no router.
    """
    inner = compiled_model(model)
    architecture = inner.config.architecture
    hints = architecture["training_hints"]
    parameters = dict(inner.named_parameters())
    roles = parameter_roles(inner)
    if hints["router_lr_multiplier"] != 1.0 and "router" not in (roles[name] for name in parameters):
        raise ValueError("training_hints.router_lr_multiplier is given, but this model has no router")
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    fitted: set[int] = set()
    for name, parameter in parameters.items():
        role = roles[name]
        index, entry = _entry_of(name, role, hints["optimizer_groups"])
        fitted.add(index)
        if not parameter.requires_grad:
            continue
        group = _group(parameter, role, entry, architecture)
        key = (group["optimizer"], role, group["lr"], group["weight_decay"])
        groups.setdefault(key, group)["params"].append(parameter)
    for index in range(len(hints["optimizer_groups"])):
        if index not in fitted:
            raise ValueError(f"training_hints.optimizer_groups[{index}] fits no parameter that an earlier one leaves")
    return sorted(groups.values(), key=lambda group: group["optimizer"] != "adamw")


def _entry_of(name: str, role: str, entries: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The first entry of the spec that fits a parameter, and its index; (-1, {}) for none."""
    for index, entry in enumerate(entries):
        if entry["role"] in (None, role) and fnmatchcase(name, entry["match"]):
            return index, entry
    return -1, {}


def _group(parameter: torch.Tensor, role: str, entry: dict[str, Any], architecture: dict[str, Any]) -> dict[str, Any]:
    """An empty group that fits a parameter."""
    hints = architecture["training_hints"]
    optimizer = entry.get("optimizer") or {"hybrid": "muon" if role in HIDDEN_ROLES else "adamw"}.get(
        hints["optimizer"], hints["optimizer"]
    )
    if parameter.ndim != 2 or role not in MATRIX_ROLES:
        # Muon is defined for matrices, and torch's takes one at a time.
        optimizer = "adamw"
    muon, rate = hints["muon"], hints["lr_peak"]
    decay = hints["weight_decay"] if role in MATRIX_ROLES else 0.0
    if entry.get("weight_decay") is not None:
        decay = entry["weight_decay"]
    factor = 1.0
    if optimizer == "muon":
        rate = rate if muon["lr_peak"] is None else muon["lr_peak"]
        own = {
            "momentum": muon["momentum"],
            "nesterov": muon["nesterov"],
            "ns_steps": muon["ns_steps"],
            "adjust_lr_fn": muon["adjust_lr"],
        }
        if uses_mup(architecture):
            factor = _muon_width_factor(role, muon["adjust_lr"], width_multiplier(architecture))
    else:
        own = {"betas": tuple(hints["betas"])}
        if role in HIDDEN_ROLES | FEW_OUTPUTS:
            factor = 1 / width_multiplier(architecture)
    multiplier = entry.get("lr_multiplier", 1.0) * (hints["router_lr_multiplier"] if role == "router" else 1.0)
    return {
        "params": [],
        "lr": rate * factor * multiplier,
        # Both optimizers decay by lr · weight_decay, which must not depend on the width.
        "weight_decay": decay / factor,
        "role": role,
        "optimizer": optimizer,
        **own,
    }


def _muon_width_factor(role: str, adjust_lr: str, width: float) -> float:
    """What µP makes of Muon's learning rate at `width` times the base width.

    An orthogonal update changes a hidden layer's output alike at every width; `match_rms_adamw` makes it grow with the
    root of the width. A table's entries must change alike, but those of an orthogonal update shrink with the root of
    the width. A router has few outputs, which an update must change no more than at the base width.
    """
    if role in TABLE_ROLES:
        return width**0.5 if adjust_lr == "original" else 1.0
    if role in FEW_OUTPUTS:
        return width**-0.5 if adjust_lr == "original" else 1 / width
    return 1.0 if adjust_lr == "original" else width**-0.5


def create_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that the spec asks for, over `optimizer_groups(model)`; fits a Trainer's `optimizers`."""
    groups = optimizer_groups(model)
    if all(group["optimizer"] == "adamw" for group in groups):
        return torch.optim.AdamW(groups)
    return MuonWithAdamW(groups)


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon for the groups that say so and torch's AdamW for the others, as one optimizer.

    Its groups and its state are those of the two, so schedulers and checkpoints treat it as any other.
    """

    param_groups: list[dict[str, Any]]

    def __init__(self, groups: list[dict[str, Any]]):
        self._inner: list[torch.optim.Optimizer] = []
        super().__init__([{**group, "params": list(group["params"])} for group in groups], {})
        for name, kind in (("adamw", torch.optim.AdamW), ("muon", torch.optim.Muon)):
            # Both fill in their defaults, in these very groups.
            if chosen := [group for group in self.param_groups if group["optimizer"] == name]:
                self._inner.append(kind(chosen))
        self._share()

    def _share(self) -> None:
        """Makes both optimizers see this one's groups and state."""
        for optimizer in self._inner:
            name = "muon" if isinstance(optimizer, torch.optim.Muon) else "adamw"
            optimizer.param_groups = [group for group in self.param_groups if group["optimizer"] == name]
            optimizer.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's."""
        super().load_state_dict(state_dict)
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self._inner:
            optimizer.step()
        return loss


def training_arguments(model: Any) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments: schedule, clipping and AdamW's own words.

    The schedule is a cosine from `lr_peak` to `lr_floor_ratio` of it after a linear warm-up; it multiplies each group's
    own rate. Checkpointing is the model's own business and not among them. `model` may be a config.
    """
    config = model if hasattr(model, "architecture") else compiled_model(model).config
    hints = config.architecture["training_hints"]
    return {
        "learning_rate": hints["lr_peak"],
        "adam_beta1": hints["betas"][0],
        "adam_beta2": hints["betas"][1],
        "weight_decay": hints["weight_decay"],
        "max_grad_norm": hints["grad_clip"],
        "warmup_steps": hints["warmup_steps_ratio"],
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": hints["lr_floor_ratio"]},
    }
