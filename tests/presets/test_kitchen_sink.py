"""The preset that holds everything at once does, at a reduced width, all that a model must do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import eulerstack as es
from eulerstack.compiler.cost import model_cost
from eulerstack.ir.types import ModelIR
from eulerstack.plugins.manager import get_registry

NAME = "arch_expert_kitchen_sink"
# As a small machine can run it; nothing but sizes changes.
SMALL = [
    "let.heads=4",
    "let.width=64",
    "let.near=16",
    "model.vocab_size=256",
    "model.max_seq_len=128",
    "model.dtype=float32",
    "tokenizer_contract.pretrained=null",
    "layer_templates.latent.mixer.attention.latent_dim=16",
    "layer_templates.latent.mixer.attention.rope_head_dim=8",
    "layer_templates.latent.memory.params.hidden=16",
    "layer_templates.far.mixer.attention.window=32",
    "layer_templates.branches.mixer.branched.branches.attention.attention.window=8",
    "layer_templates.sparse.mixer.attention.compression.top_k_blocks=4",
    "layer_templates.streams.mixer.attention.compression.m_block=4",
    "layer_schedule[2].override.attention.window=8",
    "execution_modes[0].max_tokens=10",
    "execution_modes[1].max_tokens=10",
]
# Which of them a model has one, or which can't decode from a cache.
LEFT_OUT = {"position": {"alibi", "learned", "none"}, "integrator": {"ode_adaptive"}, "head": {"causal_lm"}}


def small() -> ModelIR:
    return es.normalize_to_ir(es.load(NAME, SMALL))


def used(ir: ModelIR) -> dict[str, set[str]]:
    """The primitives of a model by kind."""
    found: dict[str, set[str]] = {kind: set() for kind in ("mixer", "ffn", "norm", "residual", "memory")}
    found |= {"position": {ir.position.type}, "head": {ir.head.type}, "integrator": set(), "merge": set()}
    for stage in ir.stages:
        if stage.word == "integrator":
            found["integrator"].add(stage.integrator.type)
        if stage.word == "parallel":
            found["merge"].add(stage.merge.type)
    for layer in ir.layers:
        for kind in ("mixer", "ffn", "norm", "residual", "memory"):
            node = getattr(layer, kind)
            if node is not None:
                found[kind] |= {node.type, *(held.type for held in node.held.values())}
    return found


def test_it_holds_every_primitive_of_ours_but_those_of_which_a_model_has_one() -> None:
    registry, found = get_registry(), used(es.normalize_to_ir(es.load(NAME)))
    merges = {"merge": {"concat", "add"}}
    for kind, names in found.items():
        ours = {each.name for each in registry.primitives(kind) if registry.is_own(each)}
        assert names == ours - LEFT_OUT.get(kind, set()) - merges.get(kind, set()), kind


def test_it_expands_to_twenty_layers_with_let_an_override_and_the_three_namespaces() -> None:
    spec = es.load(NAME)
    ir = es.normalize_to_ir(spec)
    assert len(ir.layers) == 20 and "let" in spec and ir.layers[2].mixer.params["window"] == 256
    assert {key.split(".")[0] for key in ir.extensions} >= {"experimental", "future", "vendor"}
    assert any(layer.depth_gating for layer in ir.layers)


@pytest.fixture(scope="module")
def ir() -> ModelIR:
    pytest.importorskip("torch")
    return small()


@pytest.mark.torch
class TestItRuns:
    def test_its_parameters_and_cache_bytes_are_those_declared(self, ir: ModelIR) -> None:
        import torch

        model = es.compile_to_hf_model(ir)
        assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(ir)
        assert not any(parameter.isnan().any() for parameter in model.parameters())
        with torch.no_grad():
            output = model(torch.arange(40).unsqueeze(0), use_cache=True)
        assert output.logits.shape == (1, 40, 256) and not output.logits.isnan().any()
        assert model_cost(ir).cache_bytes(40) > 0

    @pytest.mark.parametrize("chunks", [(45,), (20, 1, 7, 1, 16), (1,) * 45], ids=len)
    def test_decoding_from_the_cache_gives_what_the_whole_gives(self, ir: ModelIR, chunks: tuple[int, ...]) -> None:
        import torch

        torch.manual_seed(0)
        model = es.compile_to_hf_model(ir)
        ids = torch.randint(0, 256, (2, 45))
        with torch.no_grad():
            whole = model(ids, use_cache=False).logits
            cache, parts = None, []
            for piece in ids.split(list(chunks), dim=1):
                output = model(piece, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                parts.append(output.logits)
        assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-4

    def test_it_trains_on_text(self, ir: ModelIR) -> None:
        import torch

        text = (Path(__file__).resolve().parents[2] / "README.md").read_bytes()[: 4 * 48]
        ids = torch.tensor(list(text)).view(4, 48)
        model = es.compile_to_hf_model(ir).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(30):
            loss = model(ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.6 * losses[0] and all(loss == loss for loss in losses)

    def test_it_is_saved_and_loaded_where_eulerstack_is_not(self, ir: ModelIR, tmp_path: Path) -> None:
        es.compile_to_directory(ir, tmp_path / "model", seed=3)
        code = (
            "import sys\n"
            "class Block:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0].startswith('eulerstack'): raise ImportError(name)\n"
            "sys.meta_path.insert(0, Block())\n"
            "import torch\n"
            "from transformers import AutoModelForCausalLM\n"
            "folder, again = sys.argv[1:]\n"
            "model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()\n"
            "ids = torch.arange(24).unsqueeze(0)\n"
            "first = model(ids).logits\n"
            "model.save_pretrained(again)\n"
            "second = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True).eval()(ids).logits\n"
            "assert torch.allclose(first, second, rtol=0, atol=1e-5)\n"
            "print(float(first.double().sum()))\n"
        )
        arguments = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "again")]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        import torch

        here = es.compile_to_hf_model(ir, seed=3)(torch.arange(24).unsqueeze(0)).logits
        assert float(done.stdout.split()[-1]) == pytest.approx(float(here.double().sum()), abs=1e-3)
