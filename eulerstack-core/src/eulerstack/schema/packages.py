"""Which of this project's packages provides a word, for those who have not installed it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "eulerstack-mixers": {
        "mixer": ("attention", "branched", "hyena", "mamba", "retnet"),
        "ffn": ("mlp", "gated_mlp", "moe", "none"),
        "norm": ("rmsnorm", "layernorm"),
        "residual": ("sequential", "parallel"),
        "position": ("rope", "alibi", "learned", "none"),
        "head": ("causal_lm",),
        "integrator": ("discrete", "ode_euler", "ode_rk4"),
        "merge": ("concat", "add", "gated", "cross_attn"),
    },
    "eulerstack-ode": {"integrator": ("ode_adaptive",)},
    "eulerstack-titans": {"memory": ("associative", "neural_memory", "retrieval")},
    "eulerstack-ttt": {"mixer": ("ttt_layer",)},
}
"""The words of each package by kind."""


def is_installed(package: str) -> bool:
    """Whether the distribution called `package` is installed here."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def package_of(kind: str, name: str) -> str | None:
    """The distribution that provides the `kind` called `name`; None for words of third parties and unknown ones."""
    return next((package for package, kinds in PACKAGES.items() if name in kinds.get(kind, ())), None)
