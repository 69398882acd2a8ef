"""Generation in phases: each with its budget, hidden ones left out of what is returned, and their part of the loss.

One run of transformers' own `generate` goes through all phases, with a logits processor that ends a phase in time and
keeps the text from ending before the last one, and a stopping criterion; so sampling, beams, drafts and caches are
transformers'. Where a phase without `kv_share` ends, or a rationale without it has served, a new run starts from the
prompt and what is kept, for the sequences that are not over.

Source: a thinking phase before the answer: DeepSeek-AI 2025, arXiv:2501.12948; its end forced at a budget: Muennighoff
        et al. 2025, arXiv:2501.19393; a rationale before each token: Zelikman et al. 2024, arXiv:2403.09629
"""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from transformers import GenerationMixin
from transformers.generation import (
    GenerateDecoderOnlyOutput,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)

from eulerstack.hf.phase_lengths import total_budget
from eulerstack.hf.phase_loss import phase_weighted_loss
from eulerstack.hf.phase_requests import NO_PHASE, PhasedRequest, PhasedSequence, answer, extend
from eulerstack.hf.phase_states import PhaseState, PhaseTracker
from eulerstack.hf.phase_steps import PhaseEnd, PhaseProcessor, VisibleStreamer


class PhasedGenerationMixin(GenerationMixin):
    """`generate` for specs with phases, and the part of the loss that each has."""

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        synced_gpus: bool | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, phase after phase; without a limit of its own up to the sum of the budgets.

        Returned sequences are the prompt and the visible phases, a streamer gets these alone. With `visible_only=False`
        they hold everything; with `return_dict_in_generate=True` both are there (see `PhasedOutput`). Limits of length
        count hidden tokens too. `phase_budgets` are other budgets, {name of a phase: tokens}; `transition_token_id` is
        the id of the token that ends a phase, where config.json does not know it.

        Errors: ValueError when that id is not known, or for what several runs can't do.
        """
        others = {
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
            "synced_gpus": synced_gpus,
            "assistant_model": assistant_model,
        }
        drafts = getattr(generation_config, "is_assistant", False)
        if drafts or not self.config.architecture.get("execution_modes"):
            # What only drafts follows the phases of the model that it drafts for.
            return super().generate(
                inputs, generation_config, logits_processor, stopping_criteria, streamer=streamer, **others, **kwargs
            )
        request = PhasedRequest(self, inputs, generation_config, kwargs)
        shown = None if streamer is None else VisibleStreamer(streamer, request.program, request.fill)
        custom = (logits_processor or (), stopping_criteria or ())
        if request.restarts:
            result = self._in_runs(request, custom, shown, others)
        else:
            result = self._in_one_run(request, custom, shown, others)
        if shown is not None:
            shown.finish()
        return result

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. Errors: NotImplementedError where there are phases, which it would pass over."""
        if self.config.architecture.get("execution_modes"):
            raise NotImplementedError("continuous batching takes no processors and criteria, which phases need")
        return super().init_continuous_batching(*args, **kwargs)

    def _run(
        self,
        inputs: Any,
        words: dict[str, Any],
        custom: tuple[Iterable[Any], Iterable[Any]],
        own: tuple[Any, Any],
        streamer: Any,
    ) -> Any:
        """One run of transformers' `generate`, with processors and criteria of the caller's and `own` ones."""
        return super().generate(
            inputs,
            logits_processor=LogitsProcessorList([*custom[0], own[0]]),
            stopping_criteria=StoppingCriteriaList([*custom[1], own[1]]),
            streamer=streamer,
            **words,
        )

    def _in_one_run(self, request: PhasedRequest, custom: Any, streamer: Any, others: dict[str, Any]) -> Any:
        """All phases in one context."""
        program, fill = request.program, request.fill
        tracker = PhaseTracker(program)
        own = (PhaseProcessor(tracker), PhaseEnd(tracker, fills=fill is not None))
        words = {**request.with_settings(**request.lengths(), **request.fill_up()), **others}
        output = self._run(request.inputs, words, custom, own, streamer)
        ids = output if isinstance(output, torch.Tensor) else output.sequences
        prompt = ids.shape[1] if tracker.prompt is None else tracker.prompt
        sequences = []
        for row in ids[:, prompt:].tolist():
            sequence = PhasedSequence([], program.start)
            extend(program, sequence, row, fill if len(ids) > 1 else None)
            sequences.append(sequence)
        return answer(request, output, *request.results(ids[:, :prompt], sequences))

    def _in_runs(self, request: PhasedRequest, custom: Any, streamer: Any, drafts: dict[str, Any]) -> Any:
        """A run for each stretch of phases that share a context, with the sequences that are not over yet."""
        check_runs(request, drafts, streamer)
        others = [*custom[1], *stop_strings(request)]
        program, began = request.program, time.monotonic()
        prompts = request.inputs.repeat_interleave(request.asked("num_return_sequences", 1), dim=0)
        mask = prompt_mask(request).repeat_interleave(request.asked("num_return_sequences", 1), dim=0).bool()
        most = request.asked("max_new_tokens")
        if most is None:
            longest = request.asked("max_length")
            most = total_budget(program.modes) if longest is None else longest - prompts.shape[1]
        least = max(request.asked("min_new_tokens", 0), request.asked("min_length", 0) - prompts.shape[1])
        limit = request.asked("max_time")
        sequences = [
            PhasedSequence([(token, NO_PHASE) for token in ids[kept].tolist()], program.start)
            for ids, kept in zip(prompts, mask, strict=True)
        ]
        steps: dict[str, list[list[torch.Tensor]]] = {name: [[] for _ in sequences] for name in ("scores", "logits")}
        while active := [index for index, each in enumerate(sequences) if not each.is_over]:
            chosen = [sequences[index] for index in active]
            room = [most - len(each.tokens) for each in chosen]
            tracker = PhaseTracker(program, [each.state for each in chosen])
            own = (
                PhaseProcessor(tracker, [least - len(each.tokens) for each in chosen]),
                PhaseEnd(tracker, request.fill is not None, room, others),
            )
            ids, kept = left_padded([[token for token, _ in each.context] for each in chosen], request.fill, prompts)
            settings = {"num_return_sequences": 1, "max_new_tokens": max(room), "max_length": None}
            # How much there must be at least is the processor's business here.
            settings |= {name: 0 for name in ("min_new_tokens", "min_length") if request.asked(name)}
            if limit is not None:
                settings["max_time"] = limit - (time.monotonic() - began)
            words = request.with_settings(**settings, **request.fill_up())
            output = self._run(ids, {**words, "attention_mask": kept, **drafts}, (custom[0], ()), own, streamer)
            made = output if isinstance(output, torch.Tensor) else output.sequences
            for place, index in enumerate(active):
                sequence, before = sequences[index], len(sequences[index].tokens)
                tokens = made[place, ids.shape[1] :].tolist()[: room[place]]
                extend(program, sequence, tokens, request.fill if len(active) > 1 else None)
                for name, lists in steps.items():
                    for step in (getattr(output, name, None) or ())[: len(sequence.tokens) - before]:
                        lists[index].append(step[place])
                if not sequence.state.dropped or len(sequence.tokens) >= most or place in own[1].stopped:
                    sequence.is_over = True
                    continue
                sequence.context = program.kept(sequence.context, sequence.state.dropped)
                sequence.state = PhaseState(sequence.state.phase, sequence.state.spent)
            if streamer is not None:
                streamer.next_run()
            if limit is not None and time.monotonic() - began >= limit:
                break
        if not isinstance(output, torch.Tensor):
            found = {name: stacked(lists) for name, lists in steps.items() if any(lists)}
            output = GenerateDecoderOnlyOutput(sequences=prompts, **found)
        return answer(request, output, *request.results(prompts, sequences))

    def phase_loss(self) -> Any:
        """The next-token loss in which each token counts by its phase's `loss_weight`."""
        weights = [mode["loss_weight"] for mode in self.config.architecture["execution_modes"]]
        return partial(phase_weighted_loss, weights=weights)


def check_runs(request: PhasedRequest, others: dict[str, Any], streamer: Any) -> None:
    """Raises a ValueError for what can't be asked of several runs."""
    asked = {
        "num_beams": request.asked("num_beams", 1) > 1,
        "streamer with several sequences": streamer is not None and request.rows > 1,
        "output_attentions": request.asked("output_attentions", False),
        "output_hidden_states": request.asked("output_hidden_states", False),
        **{name: bool(value) for name, value in others.items() if name != "assistant_model"},
        **{
            name: value is not None
            for name, value in request.words.items()
            if name in ("inputs_embeds", "past_key_values", "position_ids", "negative_prompt_ids")
        },
        "no input_ids": request.inputs is None,
    }
    refused = [name for name, is_asked in asked.items() if is_asked]
    if refused:
        raise ValueError(
            "a phase of this model does not share its cache (kv_share: false), so generation begins again after it, "
            f"which does not go together with: {', '.join(refused)}"
        )


def stop_strings(request: PhasedRequest) -> list[Any]:
    """The criterion for the caller's stop strings, if there are any."""
    strings, tokenizer = request.asked("stop_strings"), request.words.get("tokenizer")
    # Without a tokenizer transformers says what is missing.
    return [StopStringCriteria(tokenizer, strings)] if strings and tokenizer is not None else []


def prompt_mask(request: PhasedRequest) -> torch.Tensor:
    """Which ids of the prompts are no padding, (batch, time); without a mask as transformers guesses it."""
    mask, ids = request.words.pop("attention_mask", None), request.inputs
    if mask is not None:
        return mask
    if request.fill is None or request.fill in request.program.stops:
        return torch.ones_like(ids)
    return (ids != request.fill).long()


def left_padded(rows: list[list[int]], fill: int | None, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (batch, time) of `rows`, padded on the left, and their mask."""
    length = max(map(len, rows))
    ids = [[*[fill] * (length - len(row)), *row] for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, dtype=like.dtype, device=like.device), torch.tensor(mask, device=like.device)


def stacked(rows: list[list[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """For each step a tensor (sequences, vocab_size), from each sequence's own steps; 0 where it has fewer."""
    nothing = torch.zeros_like(next(each for row in rows for each in row))
    return tuple(
        torch.stack([row[step] if step < len(row) else nothing for row in rows]) for step in range(max(map(len, rows)))
    )
