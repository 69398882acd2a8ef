"""What a call of `generate` asks for where there are phases, and what it is given."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from eulerstack.hf.phase_lengths import total_budget
from eulerstack.hf.phase_states import PhaseProgram, PhaseState

# The label of a token that belongs to no phase: of the prompt, or after the end.
NO_PHASE = -1


@dataclass
class PhasedOutput(GenerateDecoderOnlyOutput):
    """`sequences` holds the prompt and the visible phases; `full_sequences` (batch, all tokens) hidden ones too, and
    `phase_ids`, of the same shape, the index of each token's phase, -1 for the prompt and what fills up. Scores,
    logits, attentions and hidden states are those of the steps that made `full_sequences`."""

    full_sequences: torch.LongTensor | None = None
    phase_ids: torch.LongTensor | None = None


@dataclass
class PhasedBeamOutput(GenerateBeamDecoderOnlyOutput):
    """As `PhasedOutput`, of a beam search."""

    full_sequences: torch.LongTensor | None = None
    phase_ids: torch.LongTensor | None = None


@dataclass
class PhasedSequence:
    """One sequence of a generation: (token, phase) of its context, and of all that was generated."""

    context: list[tuple[int, int]]
    state: PhaseState
    tokens: list[tuple[int, int]] = field(default_factory=list)
    # Nothing follows: its phases or its room are over, or something else has stopped it.
    is_over: bool = False


class PhasedRequest:
    """What one call of `generate` asks for: its own words first, then its generation config's, then the model's."""

    def __init__(self, model: Any, inputs: Any, generation_config: Any, words: dict[str, Any]):
        self.model, self.generation_config = model, generation_config
        self.visible_only = words.pop("visible_only", True)
        self.own_transition = words.pop("transition_token_id", None)
        self.words = words
        self.inputs = inputs if inputs is not None else words.pop("input_ids", None)
        modes = with_budgets(model.config.architecture["execution_modes"], words.pop("phase_budgets", None))
        stops = self.stops()
        self.program = PhaseProgram(modes, self.transition(stops), stops)
        # A phase after this one begins again from the prompt.
        self.restarts = any(not mode["kv_share"] for mode in modes[:-1])
        self.fill = self.asked("pad_token_id", stops[0] if stops else None)
        given = self.inputs if self.inputs is not None else words.get("inputs_embeds")
        self.rows = (1 if given is None else given.shape[0]) * self.asked("num_return_sequences", 1)
        if self.rows > 1 and self.fill is None:
            raise ValueError("several sequences at once end at different steps: pass pad_token_id to generate")

    def asked(self, name: str, otherwise: Any = None) -> Any:
        """The value of a generation setting; `otherwise` where nobody gives one."""
        for value in (
            self.words.get(name),
            getattr(self.generation_config, name, None),
            getattr(self.model.generation_config, name, None),
        ):
            if value is not None:
                return value
        return otherwise

    def stops(self) -> list[int]:
        """The ids that end a text."""
        stops = self.asked("eos_token_id", [])
        return torch.as_tensor(stops, dtype=torch.long).flatten().tolist()

    def transition(self, stops: list[int]) -> int | None:
        """The id of the token that ends a phase; None where budgets do. Errors: ValueError when nobody knows it."""
        config = self.model.config
        transition = config.architecture["transition"]
        if transition["type"] != "special_token":
            if self.own_transition is not None:
                raise ValueError("transition_token_id is given, but the phases of this model end with their budgets")
            return None
        token, tokenizer = transition["token"], self.words.get("tokenizer")
        found = self.own_transition
        if found is None:
            found = self.asked("transition_token_id", getattr(config, "transition_token_id", None))
        if found is None and tokenizer is not None:
            found = tokenizer.get_vocab().get(token)
        if found is None:
            raise ValueError(
                f"the id of {token!r}, which ends a phase, is not known: pass transition_token_id, or a tokenizer "
                "that has this token"
            )
        if not 0 <= found < config.vocab_size:
            raise ValueError(f"transition_token_id {found} is no token: vocab_size is {config.vocab_size}")
        if found in stops:
            raise ValueError(f"transition_token_id {found} ends texts too (eos_token_id), so no phase could follow")
        return int(found)

    def with_settings(self, **settings: Any) -> dict[str, Any]:
        """The call's words with these settings in their place: beside a generation config in a copy of that."""
        if self.generation_config is None:
            return {**self.words, "generation_config": None, **settings}
        changed = copy.deepcopy(self.generation_config)
        for name, value in settings.items():
            setattr(changed, name, value)
        return {**{name: value for name, value in self.words.items() if name not in settings},
                "generation_config": changed}  # fmt: skip

    def lengths(self) -> dict[str, Any]:
        """The limit of a run through all phases: the sum of their budgets where nobody gives another."""
        given = any(self.asked(name) is not None for name in ("max_length", "max_new_tokens"))
        return {} if given else {"max_new_tokens": total_budget(self.program.modes)}

    def fill_up(self) -> dict[str, Any]:
        """The id that sequences which have ended are filled up with."""
        return {} if self.fill is None else {"pad_token_id": self.fill}

    def results(self, prompts: torch.Tensor, sequences: list[PhasedSequence]) -> tuple[torch.Tensor, ...]:
        """Visible sequences, full sequences, and the phases of these, from prompts (batch, time)."""
        modes = self.program.modes
        visible = [[token for token, phase in each.tokens if modes[phase]["visible_to_user"]] for each in sequences]
        full = [[token for token, _ in each.tokens] for each in sequences]
        phases = [[phase for _, phase in each.tokens] for each in sequences]
        nothing = torch.full_like(prompts, NO_PHASE)
        return (
            joined(prompts, visible, self.fill),
            joined(prompts, full, self.fill),
            joined(nothing, phases, NO_PHASE),
        )


def with_budgets(modes: list[dict[str, Any]], budgets: dict[str, int] | None) -> list[dict[str, Any]]:
    """`modes` with other budgets, by the names of phases. Errors: ValueError for a name or a budget that can't be."""
    for name, budget in (budgets or {}).items():
        if name not in (mode["name"] for mode in modes):
            raise ValueError(f"phase_budgets: there is no phase {name!r}")
        if budget < 1:
            raise ValueError(f"phase_budgets: {name!r} needs a token at least")
    return [{**mode, "max_tokens": (budgets or {}).get(mode["name"], mode["max_tokens"])} for mode in modes]


def joined(prompts: torch.Tensor, rows: list[list[int]], fill: int | None) -> torch.Tensor:
    """prompts (batch, time) followed by `rows`, which are filled up to one length."""
    length = max(map(len, rows), default=0)
    filled = [[*row, *[fill] * (length - len(row))] for row in rows]
    return torch.cat((prompts, torch.tensor(filled, dtype=prompts.dtype, device=prompts.device)), dim=1)


def extend(program: PhaseProgram, sequence: PhasedSequence, tokens: list[int], fill: int | None) -> None:
    """Adds what a run has generated to a sequence, up to where it rests.

    A row that something else has stopped is filled up with `fill`, which is no part of it; None: no row is filled up.
    """
    added = 0
    for token in tokens:
        if program.rests(sequence.state) or token < 0:
            break
        pair = (token, sequence.state.phase)
        sequence.context.append(pair)
        sequence.tokens.append(pair)
        sequence.state = program.advance(sequence.state, token)
        added += 1
    while added and fill is not None and not program.rests(sequence.state) and sequence.tokens[-1][0] == fill:
        sequence.tokens.pop()
        sequence.context.pop()
        added -= 1


def answer(request: PhasedRequest, output: Any, visible: Any, full: Any, phase_ids: Any) -> Any:
    """What `generate` returns, in the form that transformers has chosen."""
    sequences = visible if request.visible_only else full
    if isinstance(output, torch.Tensor):
        return sequences
    kind = PhasedBeamOutput if isinstance(output, GenerateBeamDecoderOnlyOutput) else PhasedOutput
    return kind(**{**output, "sequences": sequences}, full_sequences=full, phase_ids=phase_ids)
