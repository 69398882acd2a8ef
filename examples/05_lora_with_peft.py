"""LoRA through PEFT on an exported directory, hybrids included. Needs no eulerstack.

    python examples/05_lora_with_peft.py build/examples/trained build/data --output-dir build/examples/lora

`all-linear` reaches every linear layer of every mixer and feed-forward block but the head; `--target` names some of
them instead, and `--expert` names the tensors that hold a mixture's experts: docs/reference/lora.md lists the names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import load_from_disk
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments


def load(directory: str | Path) -> torch.nn.Module:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, dtype=torch.float32)


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits in eval mode."""
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def main() -> None:
    """Trains adapters, saves them, and shows that they load again and merge into a plain directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="a directory that python -m eulerstack.data.prepare has written")
    parser.add_argument("--output-dir", type=Path, default=Path("build/examples/lora"))
    parser.add_argument("--target", action="append", default=[], help="name of a linear layer, such as in_proj")
    parser.add_argument("--expert", action="append", default=[], help="such as experts.down_proj")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()

    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        target_modules=options.target or "all-linear",
        target_parameters=options.expert or None,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(load(options.model), config)
    model.print_trainable_parameters()
    blocks = load_from_disk(options.data)
    arguments = TrainingArguments(
        str(options.output_dir / "run"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        logging_steps=max(1, options.steps // 5),
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=blocks).train()

    adapter, merged = options.output_dir / "adapter", options.output_dir / "merged"
    model.save_pretrained(adapter)
    ids = torch.tensor([blocks[0]["input_ids"]]).to(model.device)
    trained = logits_of(model, ids)
    again = PeftModel.from_pretrained(load(options.model).to(model.device), adapter)
    difference = (logits_of(again, ids) - trained).abs().max()
    print(f"adapter saved and loaded: logits differ by {difference:.1e}")
    assert difference < 1e-4

    again.merge_and_unload().save_pretrained(merged)
    difference = (logits_of(load(merged).to(model.device), ids) - trained).abs().max()
    moved = (logits_of(load(options.model).to(model.device), ids) - trained).abs().max()
    print(f"merged, saved and loaded: logits differ by {difference:.1e}, from those before training by {moved:.1e}")
    assert difference < 1e-3 < moved


if __name__ == "__main__":
    main()
