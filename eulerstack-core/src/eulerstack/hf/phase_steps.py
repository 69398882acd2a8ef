"""How phases act on transformers' `generate`: its processors, its criteria and its streamers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from eulerstack.hf.phase_states import PhaseProgram, PhaseState, PhaseTracker


class PhaseProcessor(LogitsProcessor):
    """Ends a phase with its token when the budget is down to one, and no text before the last phase.

    `least` are the tokens that each sequence must still have before its text may end.
    """

    def __init__(self, tracker: PhaseTracker, least: list[int] | None = None):
        self.tracker, self.least = tracker, least

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        program = self.tracker.program
        states = self.tracker.states(input_ids)
        used = self.tracker.used(input_ids)
        lasting = [state.phase < program.last for state in states]
        if self.least is not None:
            lasting = [early or used < least for early, least in zip(lasting, self.least, strict=True)]
        stops = [token for token in program.stops if token < scores.shape[-1]]
        if stops and any(lasting):
            barred = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
            barred[stops] = True
            rows = torch.tensor(lasting, device=scores.device).unsqueeze(-1)
            scores = scores.masked_fill(rows & barred, -torch.inf)
        forced = [program.must_end(state) for state in states]
        if any(forced):
            only = torch.full_like(scores[:1], -torch.inf)
            only[:, program.transition] = 0.0
            scores = torch.where(torch.tensor(forced, device=scores.device).unsqueeze(-1), only, scores)
        return scores


class PhaseEnd(StoppingCriteria):
    """Stops a sequence when its phases are over, when its context must be made again, or when it has no room left.

    `room` are the tokens that each sequence may have in this run. What one of the `others` stops is over, at the very
    token that ends a phase too; `stopped` says which sequences these are.
    """

    def __init__(self, tracker: PhaseTracker, fills: bool, room: list[int] | None = None, others: Sequence[Any] = ()):
        self.tracker, self.room, self.others = tracker, room, others
        self.stopped: set[int] = set()
        self.resting: set[int] = set()
        if fills:
            # transformers fills up sequences that have stopped where a criterion has this attribute.
            self.eos_token_id = None

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        done = [self.tracker.program.rests(state) for state in self.tracker.states(input_ids)]
        if self.room is not None:
            used = self.tracker.used(input_ids)
            done = [rests or used >= room for rests, room in zip(done, self.room, strict=True)]
        for criterion in self.others:
            hits = torch.as_tensor(criterion(input_ids, scores, **kwargs)).expand(len(done)).tolist()
            self.stopped |= {index for index, hit in enumerate(hits) if hit and index not in self.resting}
        self.resting |= {index for index, rests in enumerate(done) if rests}
        return torch.tensor(
            [rests or index in self.stopped for index, rests in enumerate(done)], device=input_ids.device
        )


class VisibleStreamer(BaseStreamer):
    """Passes the prompt and the tokens of visible phases on to another streamer.

    Of several sequences at once, those in hidden phases send the id that fills up; a step without any visible token
    sends nothing.
    """

    def __init__(self, streamer: Any, program: PhaseProgram, fill: int | None):
        self.streamer, self.program, self.fill = streamer, program, fill
        self.states: list[PhaseState] = []
        self.begun = False

    def put(self, value: torch.Tensor) -> None:
        if not self.begun:
            # The first that a run sends is what it starts from.
            self.begun = True
            if not self.states:
                self.states = [self.program.start] * (value.shape[0] if value.ndim > 1 else 1)
                self.streamer.put(value)
            return
        columns = [[token] for token in value.flatten().tolist()] if len(self.states) == 1 else [value.tolist()]
        for column in columns:
            visible = [self._is_visible(state) for state in self.states]
            self.states = [self.program.advance(state, token) for state, token in zip(self.states, column, strict=True)]
            if any(visible):
                shown = [token if seen else self.fill for token, seen in zip(column, visible, strict=True)]
                self.streamer.put(torch.tensor(shown, dtype=value.dtype))

    def _is_visible(self, state: PhaseState) -> bool:
        return not self.program.rests(state) and self.program.modes[state.phase]["visible_to_user"]

    def next_run(self) -> None:
        """Says that transformers begins again, from what is kept."""
        self.begun = False
        self.states = [PhaseState(state.phase, state.spent) for state in self.states]

    def end(self) -> None:
        """A run has ended, but perhaps not the last one: `finish` says so."""

    def finish(self) -> None:
        """Ends the other streamer."""
        self.streamer.end()
