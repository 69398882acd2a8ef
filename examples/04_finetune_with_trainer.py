"""Trains a compiled directory with transformers' Trainer, and saves what it has learnt.

    python examples/make_corpus.py build/corpus.jsonl
    python -m eulerstack.data.prepare build/corpus.jsonl --preset build/examples/model --output-dir build/data
    python examples/04_finetune_with_trainer.py build/examples/model build/data --output-dir build/examples/trained

Schedule, clipping and optimizer groups are those of the spec's training_hints; whatever else a Trainer takes is yours.
"""

from __future__ import annotations

import argparse

import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from eulerstack.hf import create_optimizer, training_arguments


def main() -> None:
    """Trains on nine tenths of the blocks, and measures the loss on the others before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="a directory that python -m eulerstack.data.prepare has written")
    parser.add_argument("--output-dir", default="build/examples/trained")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--evaluated-blocks", type=int, default=16)
    options = parser.parse_args()

    # Weights in float32: a step is smaller than what bfloat16 can tell apart.
    model = AutoModelForCausalLM.from_pretrained(options.model, trust_remote_code=True, dtype=torch.float32)
    blocks = load_from_disk(options.data).train_test_split(test_size=0.1, seed=0)
    held_out = blocks["test"].select(range(min(options.evaluated_blocks, len(blocks["test"]))))
    arguments = TrainingArguments(
        options.output_dir,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        bf16=torch.cuda.is_available(),
        logging_steps=max(1, options.steps // 5),
        # The losses are what is wanted, not logits of every token.
        prediction_loss_only=True,
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        **training_arguments(model),
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=blocks["train"],
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(options.model, trust_remote_code=True),
        optimizers=(create_optimizer(model), None),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model(options.output_dir)
    print(f"loss on blocks that were not trained on: {before:.3f} before, {after:.3f} after {options.steps} steps")
    print(f"saved: {options.output_dir}")


if __name__ == "__main__":
    main()
