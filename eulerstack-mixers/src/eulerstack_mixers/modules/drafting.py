"""Drafts of the tokens after the next, by the modules of a head, for transformers' assisted generation.

The model checks every draft by its own logits, so greedy output is what it would be without, and sampling follows the
model's distribution. One token after the next is drafted by each module.
"""

from typing import Any

import torch
from transformers.generation.candidate_generator import CandidateGenerator


def last_hidden_states_alone() -> Any:
    """What to ask of the model's forward for its last hidden states: those alone, where transformers can choose."""
    try:
        from transformers.utils.output_capturing import selected_hidden_states  # noqa: F401
    except ImportError:
        return True
    return -1


def check_rollback(caches: list[Any], whose: str) -> None:
    """ValueError for a cache from which tokens can't be taken back."""
    for cache in caches:
        if not all(getattr(layer, "is_croppable", True) for layer in cache.layers):
            raise ValueError(
                f"{whose} keeps a state that can't be rolled back when a draft is refused: generate without use_mtp"
            )


class HeadDrafts(CandidateGenerator):
    """Proposes, after each pass of the model, as many tokens as the head has modules, `num_assistant_tokens` at most.

    A module's cache holds one entry a position, computed from that position's hidden state and a later token. The
    entries whose token was itself a draft are dropped after each round, and computed again from the tokens accepted.
    """

    requires_model_outputs = True

    def __init__(self, model: Any, generation_config: Any, logits_processor: Any):
        self.model, self.head = model, model.head
        most = generation_config.num_assistant_tokens
        self.depth = len(self.head.predictors) if most is None else max(0, min(len(self.head.predictors), most))
        self.max_length, self.do_sample = generation_config.max_length, generation_config.do_sample
        self.logits_processor = logits_processor
        self.model_kwargs_overrides = {"output_hidden_states": last_hidden_states_alone()}
        self.caches = self.head.draft_caches()[: self.depth]
        if self.depth > 1:
            check_rollback(self.caches, "the head's template")
            for cache in self.caches:
                cache.activate_past_recording()
        # Hidden states of the positions that modules have to see again, (1, depth - 1 at most, d_model).
        self.tail: torch.Tensor | None = None

    @torch.no_grad()
    def get_candidates(
        self,
        input_ids: torch.LongTensor,
        model_kwargs: dict[str, Any],
        model_outputs: Any,
        is_first_iteration: bool,
        n_last_matches: int,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`input_ids` with the drafts after them, and the drafts' logits; in the first round there are none yet."""
        if is_first_iteration:
            check_rollback([model_kwargs["past_key_values"]], "the model")
            return input_ids, None
        count = min(self.depth, self.max_length - input_ids.shape[1] - 1)
        if count <= 0:
            return input_ids, None
        fresh = model_outputs.hidden_states[-1]
        if self.tail is not None:
            # Of the tokens that the model has just seen, those that it accepted.
            fresh = torch.cat((self.tail, fresh[:, : n_last_matches + 1].to(self.tail.device)), dim=1)
        drafts, logits = self.draft(input_ids, fresh, count, model_kwargs.get("attention_mask"))
        again = self.depth - 1
        self.tail = fresh[:, fresh.shape[1] - min(again, fresh.shape[1]) :]
        if again > 0:
            for cache in self.caches[:count]:
                cache.crop(-self.tail.shape[1])
        return torch.cat((input_ids, drafts), dim=1), logits

    def draft(
        self, input_ids: torch.Tensor, hidden_states: torch.Tensor, count: int, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` tokens (1, count) and their logits (1, count, vocab_size).

        `hidden_states` are those of the last positions before the newest token; what the caches hold lies before them.
        """
        time = hidden_states.shape[1]
        first = input_ids.shape[1] - 1 - time
        tokens, logits = input_ids, []
        for depth in range(1, count + 1):
            cache = self.caches[depth - 1]
            later = tokens[:, first + depth :]
            mask = attention_mask
            if mask is not None:
                held = int(cache.get_seq_length())
                mask = mask[:, first - held : first + time]
            hidden_states = self.head.predictors[depth - 1](
                hidden_states,
                self.model.get_input_embeddings()(later).to(hidden_states.device),
                input_ids=later,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            scores = self.head(hidden_states[:, -1:], self.model.project)[:, -1].to(input_ids.device).float()
            if self.logits_processor is not None:
                scores = self.logits_processor(tokens, scores)
            if self.do_sample:
                token = torch.multinomial(scores.softmax(-1), num_samples=1)
            else:
                token = scores.argmax(-1, keepdim=True)
            logits.append(scores[:, None])
            tokens = torch.cat((tokens, token), dim=1)
        return tokens[:, input_ids.shape[1] :], torch.cat(logits, dim=1)

    def update_candidate_strategy(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, num_matches: int
    ) -> None:
        """Nothing: the number of drafts stays."""
