"""Tensor, pipeline and data parallelism over two CPU processes, through transformers' own loader."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import eulerstack as es
from tests.model.specs import changed, enliven, tiny_spec
from tests.model.variants import ATTENTION, VARIANTS

PROGRAM = """
import os
import sys
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

torch.set_num_threads(1)
directory, expected, setting, expected_rows = sys.argv[1:]
dist.init_process_group("gloo")
model = AutoModelForCausalLM.from_pretrained(
    directory, trust_remote_code=True, distributed_config=DistributedConfig(**{setting: 2})
)
if setting == "tp_size":
    local = model.model.layers[0].mixer.q_proj.weight
    rows = (local.to_local() if hasattr(local, "to_local") else local).shape[0]
    assert rows == int(expected_rows), rows
ids = torch.arange(16).reshape(2, 8)
with torch.no_grad():
    logits = model(ids, use_cache=False).logits
    logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
difference = (logits - torch.load(expected)).abs().max().item()
assert difference < 1e-5, difference
# Neither leaves while the other still speaks, nor by a shutdown whose threads may end in any order.
dist.barrier()
os._exit(0)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("setting", ["tp_size", "fsdp_size"])
@pytest.mark.parametrize("name", ["even_heads", "qk_norm_full", "alibi", "latent", "sinks"])
def test_two_processes_give_the_numbers_of_one(setting: str, name: str, tmp_path: Path) -> None:
    even = {"model.d_model": 32, "model.n_heads": 4, "model.n_kv_heads": 2, "model.d_ff": 48, "model.vocab_size": 64}
    base = changed(tiny_spec(), even)
    spec = {
        "even_heads": base,
        "qk_norm_full": changed(base, {f"{ATTENTION}.qk_norm": "full"}),
        "alibi": changed(base, {"embedding.positional": "alibi"}),
        # Queries of 4 heads with 4 rotary channels beside their 4 others are as wide as those of the other models.
        "latent": changed(base, {"model.head_dim": 4, f"{ATTENTION}.latent_dim": 16, f"{ATTENTION}.rope_head_dim": 4}),
        "sinks": changed(base, {f"{ATTENTION}.attention_sinks": {}}),
    }[name]
    model = es.compile_to_hf_model(es.normalize_to_ir(spec))
    enliven(model)
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        torch.save(model(torch.arange(16).reshape(2, 8)).logits, tmp_path / "expected.pt")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    port = str(free_port())
    rows = "16" if name == "even_heads" else "32"
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(tmp_path / f"modules{rank}"),
        }
        process = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path / "model"), str(tmp_path / "expected.pt"), setting, rows],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        processes.append(process)
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)


def test_the_plan_names_modules_that_exist_and_splits_attention_and_feed_forward() -> None:
    model = es.compile_to_hf_model(es.normalize_to_ir(VARIANTS["plain"]))
    modules = dict(model.model.named_modules())
    plan = model.config.tensor_parallel_plan
    assert set(plan.values()) == {"colwise", "rowwise"}
    assert all(key.replace("*", "0") in modules for key in plan)
