"""From a spec to a HuggingFace directory: read, check, count, compile, save, and load it again.

    python examples/01_compile_and_export.py --output-dir build/examples/model

`--preset` takes any spec, `--set` changes it: --set model.d_model=128. What is written needs no eulerstack.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM

import eulerstack as es


def main() -> None:
    """Compiles twice, in memory and to a directory, and shows that both are the same model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="arch_expert_progressive_stack_mini")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="assignments")
    parser.add_argument("--output-dir", default="build/examples/model")
    options = parser.parse_args()

    spec = es.load(options.preset, options.assignments)
    es.validate_v2(spec)
    ir = es.normalize_to_ir(spec)
    print(f"{ir.model['name']}: {len(ir.layers)} layers, {es.count_parameters(ir):,} parameters, counted without torch")

    # In memory, for a program that goes on with it. `save_pretrained` would write a directory that loads too.
    model = es.compile_to_hf_model(ir, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == es.count_parameters(ir)

    # As a directory, tensor by tensor: this is what `eulerstack compile` does, and it takes any size of model.
    directory = es.compile_to_directory(ir, options.output_dir, seed=0, force=True)
    print("written:", ", ".join(sorted(path.name for path in directory.iterdir())))

    loaded = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
    ids = torch.arange(1, 33).unsqueeze(0) % model.config.vocab_size
    with torch.no_grad():
        assert torch.equal(model(ids).logits, loaded(ids).logits)
    print(f"loaded: {type(loaded).__name__} of {loaded.dtype}, the same logits as in memory")


if __name__ == "__main__":
    main()
