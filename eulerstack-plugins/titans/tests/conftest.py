"""One memory by itself, with weights that hide nothing."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eulerstack.plugins import Dims
from eulerstack.schema.defaults import complete, complete_words

if find_spec("eulerstack_titans") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from eulerstack.plugins.memory import settle_memory
    from eulerstack_titans.modules.associative import AssociativeMemory
    from eulerstack_titans.modules.neural_memory import NeuralMemory
    from eulerstack_titans.modules.retrieval import RetrievalMemory
    from eulerstack_titans.plugin import eulerstack_memories

    CLASSES = {"neural_memory": NeuralMemory, "associative": AssociativeMemory, "retrieval": RetrievalMemory}
    DECLARED = {primitive.name: primitive for primitive in eulerstack_memories()}

torch.set_num_threads(1)
DIMS = Dims(
    d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, d_ff=50, vocab_size=50, max_seq_len=64, norm_eps=1e-5,
    positional="rope",
)  # fmt: skip
# name -> type and words; rates at which every memory learns something in a few tokens, and none diverges.
KINDS: dict[str, dict[str, Any]] = {
    "neural": {"type": "neural_memory", "inner_lr": 0.05, "mini_batch": 4, "params": {"hidden": 10}},
    "neural-matrix": {"type": "neural_memory", "inner_lr": 0.1, "depth": 1, "momentum": 0, "mini_batch": 5},
    "neural-deep": {"type": "neural_memory", "inner_lr": 0.05, "depth": 3, "forget": 0, "mini_batch": 16},
    "neural-online": {"type": "neural_memory", "inner_lr": 0.05, "mini_batch": 1, "params": {"hidden": 7}},
    "neural-still": {"type": "neural_memory", "update_at_inference": False, "params": {"hidden": 10}},
    "associative": {"type": "associative", "params": {"hidden": 15}},
    "associative-kept": {"type": "associative", "forget": 0, "inner_lr": 1.5},
    "retrieval": {"type": "retrieval", "params": {"slots": 7, "top_k": 3, "hidden": 15}},
    "retrieval-all": {"type": "retrieval", "params": {"slots": 64, "top_k": 64}},
}
WRITTEN = [name for name, words in KINDS.items() if words.get("update_at_inference", True)]


def complete_params(words: dict[str, Any]) -> dict[str, Any]:
    """Complete, resolved parameters of what a template says."""
    primitive = DECLARED[words["type"]]
    given = complete(primitive.schema or {}, words.get("params", {}))
    inline = {word: value for word, value in words.items() if word not in ("type", "params")}
    params = {**given, **complete_words(primitive.inline, inline)}
    return dict(settle_memory(primitive.resolve(params, {"model": {"d_model": 24, "n_heads": 3, "head_dim": 8}})))


def initial(words: dict[str, Any]) -> Any:
    """A memory of 24 channels and 3 heads, as it is initialised."""
    torch.manual_seed(0)
    memory = CLASSES[words["type"]](
        SimpleNamespace(hidden_size=24, num_attention_heads=3, head_dim=8), complete_params(words), 0
    )
    memory.initialize(0.02)
    return memory.eval()


def lively(name: str) -> Any:
    """The same with every parameter moved off its initial value."""
    memory = initial(KINDS[name])
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return memory


@pytest.fixture
def tools() -> SimpleNamespace:
    """What every test here is made of."""
    return SimpleNamespace(
        DIMS=DIMS, DECLARED=DECLARED, complete_params=complete_params, initial=initial, lively=lively, KINDS=KINDS
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kind` is the name of every memory, `written` of every one that reading changes."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", list(KINDS))
    if "written" in metafunc.fixturenames:
        metafunc.parametrize("written", WRITTEN)
