"""Experts by a hash of the token's id, in which a router has no say.

For h, which mixes the bits of a number below 2^32, and x = h(t + h(salt)): the j-th expert of token t, from 0 on, is
number h(x + j) mod (experts - j) of those that it does not have yet, in their order. So its experts differ from each
other, and all choices are alike likely.

Shapes: token ids (tokens) -> experts (tokens, top_k)
Source: random hashes: Roller et al. 2021, arXiv:2106.04426, section 3; h is the last step of MurmurHash3
"""

import torch

from eulerstack.hf.tables import ByName

LOW_BITS = 0xFFFFFFFF


def mixed_bits(numbers: torch.Tensor) -> torch.Tensor:
    """A one-to-one map of the numbers below 2^32, in which every bit depends on every other."""
    numbers = numbers & LOW_BITS
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        # The product's low bits are right although its high ones overflow.
        numbers = ((numbers ^ (numbers >> shift)) * factor) & LOW_BITS
    return numbers ^ (numbers >> 16)


def hashed_experts(token_ids: torch.Tensor, salt: int, n_experts: int, top_k: int) -> torch.Tensor:
    """The experts of each token, (tokens, top_k), as whole numbers."""
    start = mixed_bits(token_ids.long() + mixed_bits(torch.full_like(token_ids, salt, dtype=torch.long)))
    experts = start.new_empty(top_k, *start.shape)
    for j in range(top_k):
        number = mixed_bits(start + j) % (n_experts - j)
        for earlier in experts[:j].sort(0).values:
            number = number + (number >= earlier)
        experts[j] = number
    return experts.movedim(0, -1)


# Rules by which token ids alone choose experts; where the routing is learned there is none.
FIXED_ROUTES: ByName = {
    "hash": hashed_experts,
}
