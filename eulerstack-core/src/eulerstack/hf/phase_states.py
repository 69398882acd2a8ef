"""In which phase each sequence of a generation is, token by token.

A phase ends with the transition token, where there is one, or with its budget; the last one with a token that ends the
text, or with its budget. A phase with `per_token_rationale` is gone through before every single token of the next one.
What a phase without `kv_share` held is dropped when it ends; a rationale's after the token that it was for.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class PhaseState:
    """Where one sequence stands after some tokens.

    phase    index of the phase that the next token belongs to; their number where there is none
    spent    tokens that each phase has used, a rationale's since it was entered last
    dropped  phases whose tokens are no part of the context any more: it must be made again before the next token
    """

    phase: int
    spent: tuple[int, ...]
    dropped: tuple[int, ...] = ()


class PhaseProgram:
    """The phases as a machine that reads tokens.

    `modes` are the spec's execution_modes; `transition` the id of the token that ends a phase, None where only budgets
    do; `stops` the ids that end a text.
    """

    def __init__(self, modes: Sequence[dict[str, Any]], transition: int | None, stops: Collection[int]):
        self.modes, self.transition, self.stops = modes, transition, frozenset(stops)
        self.last = len(modes) - 1
        self.start = PhaseState(0, (0,) * len(modes))

    def is_over(self, state: PhaseState) -> bool:
        """Whether all phases have ended."""
        return state.phase > self.last

    def rests(self, state: PhaseState) -> bool:
        """Whether no token can follow as things are: all is over, or the context has to be made again."""
        return self.is_over(state) or bool(state.dropped)

    def must_end(self, state: PhaseState) -> bool:
        """Whether the budget has room for one more token in a phase that a token ends: that token."""
        if self.transition is None or state.phase >= self.last:
            return False
        return state.spent[state.phase] + 1 >= self.modes[state.phase]["max_tokens"]

    def advance(self, state: PhaseState, token: int) -> PhaseState:
        """The state after one more token."""
        if self.rests(state):
            return state
        phase, spent, dropped = state.phase, list(state.spent), []
        mode = self.modes[phase]
        spent[phase] += 1
        stopped = token in self.stops if phase == self.last else token == self.transition
        ends = stopped or spent[phase] >= mode["max_tokens"]
        rationale = phase - 1 if phase and self.modes[phase - 1]["per_token_rationale"] else None
        if rationale is not None and not self.modes[rationale]["kv_share"]:
            dropped.append(rationale)
        if ends and not mode["kv_share"] and not mode["per_token_rationale"]:
            dropped.append(phase)
        following = phase + 1 if ends else phase
        if rationale is not None and not ends:
            following = rationale
            spent[rationale] = 0
        # Nothing is generated after the end, so nothing has to be made again.
        return PhaseState(following, tuple(spent), () if following > self.last else tuple(dropped))

    def walk(self, state: PhaseState, tokens: Sequence[int]) -> PhaseState:
        """The state after `tokens`."""
        for token in tokens:
            state = self.advance(state, token)
        return state

    def label(self, tokens: Sequence[int]) -> list[int]:
        """The phase of each of the tokens that follow a prompt; -1 for those after the end."""
        state, phases = self.start, []
        for token in tokens:
            phases.append(-1 if self.rests(state) else state.phase)
            state = self.advance(state, token)
        return phases

    def kept(self, context: Sequence[tuple[int, int]], dropped: Collection[int]) -> list[tuple[int, int]]:
        """(token, phase) of what stays of a context; the transition token that ended a dropped phase does."""
        *others, last = context
        kept = [each for each in others if each[1] not in dropped]
        return [*kept, last] if last[1] not in dropped or last[0] == self.transition else kept


class PhaseTracker:
    """The states of all sequences of one run of transformers' `generate`, from their ids alone.

    So beams may change places and drafts be rejected. `starts` are the states before the run, one for each sequence;
    None: nobody has begun.
    """

    def __init__(self, program: PhaseProgram, starts: Sequence[PhaseState] | None = None):
        self.program, self.starts = program, starts
        # Length of the prompt, in ids; known from the first step on.
        self.prompt: int | None = None
        self.seen = torch.empty(0)
        self.reached: list[PhaseState] = []

    def states(self, input_ids: torch.Tensor) -> list[PhaseState]:
        """The state of each row of input_ids (sequences, prompt + tokens) after its last token."""
        if self.prompt is None:
            self.prompt = input_ids.shape[1]
        tokens = input_ids[:, self.prompt :]
        states, known = self._known(tokens)
        for index, row in enumerate(tokens[:, known:].tolist()):
            states[index] = self.program.walk(states[index], row)
        self.seen, self.reached = tokens.clone(), states
        return list(states)

    def _known(self, tokens: torch.Tensor) -> tuple[list[PhaseState], int]:
        """The states of rows that continue ones seen before, and the number of tokens that these were of."""
        length = self.seen.shape[-1]
        if self.seen.ndim == 2 and tokens.shape[1] >= length:
            past = tokens[:, :length]
            if torch.equal(past, self.seen):
                return list(self.reached), length
            same = (past.unsqueeze(1) == self.seen).all(-1)
            if bool(same.any(-1).all()):
                return [self.reached[index] for index in same.int().argmax(-1).tolist()], length
        return list(self.starts or [self.program.start] * tokens.shape[0]), 0

    def used(self, input_ids: torch.Tensor) -> int:
        """Tokens that the run has generated so far."""
        return 0 if self.prompt is None else input_ids.shape[1] - self.prompt
