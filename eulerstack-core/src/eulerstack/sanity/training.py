"""The training run itself: transformers' Trainer with what the spec's `training_hints` say, and a watcher."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from eulerstack.errors import CompatibilityError, Diagnostic, Message, msg
from eulerstack.hf.optimizers import compiled_model, create_optimizer, training_arguments
from eulerstack.sanity.report import Report
from eulerstack.sanity.watching import Watcher

SEE = "reference/sanity.md#a-short-training-run"
COLUMNS = ("input_ids", "position_ids", "labels")


def train(model: Any, dataset: Any, *, name: str, steps: int, batch_size: int, seed: int) -> Report:
    """As `eulerstack.sanity.check`."""
    inner = compiled_model(model)
    block_tokens = checked(dataset, inner.config)
    watcher = Watcher(model, steps)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            logging_steps=1,
            # Or numbers that are none would be replaced by earlier ones.
            logging_nan_inf_filter=False,
            # Weights are kept in float32 by the caller where that is wanted; a GPU computes in what the spec declares.
            bf16=torch.cuda.is_available() and str(inner.config.dtype).endswith("bfloat16"),
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            seed=seed,
            data_seed=seed,
            **training_arguments(model),
        )
        trainer = Trainer(
            model, arguments, train_dataset=dataset, optimizers=(create_optimizer(model), None), callbacks=[watcher]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Report(
        name=name,
        parameters=sum(parameter.numel() for parameter in inner.parameters()),
        device=str(next(inner.parameters()).device),
        batch_size=batch_size,
        block_tokens=block_tokens,
        losses=tuple(watcher.losses),
        gradient_norms=tuple(watcher.gradient_norms),
        uniform_loss=math.log(inner.config.vocab_size),
        dead_parameters=tuple(watcher.without_gradient),
        experts=watcher.expert_loads(),
        tokens_per_second=batch_size * block_tokens / watcher.seconds_of_a_step(),
    )


def checked(dataset: Any, config: Any) -> int:
    """The length of the dataset's blocks; raises a CompatibilityError where they don't fit the model."""

    def refused(what: Message, fix: Message) -> CompatibilityError:
        return CompatibilityError([Diagnostic(CompatibilityError.category, what, fix, SEE, "data")])

    again = msg("make the data with this spec: {command}", command="python -m eulerstack.data.prepare --preset …")
    missing = [column for column in COLUMNS if column not in dataset.column_names]
    if missing or not len(dataset):
        raise refused(msg("the data has no {column}", column=(missing or ["input_ids"])[0]), again)
    length = len(dataset[0]["input_ids"])
    if length > config.max_position_embeddings:
        what = msg("blocks of {size} tokens are longer than max_seq_len {longest}",
                   size=length, longest=config.max_position_embeddings)  # fmt: skip
        raise refused(what, again)
    largest = max(int(batch["input_ids"].max()) for batch in dataset.with_format("numpy").iter(batch_size=1000))
    if largest >= config.vocab_size:
        what = msg("the data has token {token}, beyond vocab_size {size}", token=largest, size=config.vocab_size)
        raise refused(what, again)
    return length
