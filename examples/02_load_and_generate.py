"""Loads a compiled directory and generates text. Needs transformers and torch, and no eulerstack.

    python examples/02_load_and_generate.py build/examples/model --prompt "def main():"

A directory that was only compiled has random weights, and its text is as random as they are.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Greedy and sampled text, with the cache that the model's layers keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--prompt", default="def main():")
    parser.add_argument("--new-tokens", type=int, default=24)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.directory, trust_remote_code=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.directory, trust_remote_code=True)
    inputs = tokenizer(options.prompt, return_tensors="pt")
    lengths = {"max_new_tokens": options.new_tokens, "pad_token_id": tokenizer.pad_token_id}

    greedy = model.generate(**inputs, **lengths, do_sample=False)
    print(f"greedy:  {tokenizer.decode(greedy[0])!r}")
    torch.manual_seed(0)
    sampled = model.generate(**inputs, **lengths, do_sample=True, temperature=0.8, top_k=50)
    print(f"sampled: {tokenizer.decode(sampled[0])!r}")

    # Keys and values for attention, states of fixed size for others: whatever a layer keeps, decoding goes on from it.
    output = model(**inputs, use_cache=True)
    following = model(output.logits[:, -1:].argmax(-1), past_key_values=output.past_key_values, use_cache=True)
    print(f"cache:   {len(output.past_key_values.layers)} slots; the next step read {following.logits.shape[1]} token")


if __name__ == "__main__":
    main()
