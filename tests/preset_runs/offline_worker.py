"""Run as a script: does with compiled directories what their owner would, where eulerstack can't be imported.

Each line of standard input is a JSON list: a directory, an empty place to save into, a file of text, a number of
training steps. Each answer on standard output is a JSON mapping of what came of it. One process serves many
directories, because importing torch and transformers takes longer than all the rest.
"""

import json
import os
import sys
import time
import traceback


class Refuse:
    """An import hook that hides every package of EulerStack."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("eulerstack"):
            raise ModuleNotFoundError(f"{name} is hidden from this process")
        return None


sys.meta_path.insert(0, Refuse())
try:
    import eulerstack  # noqa: F401
except ModuleNotFoundError:
    pass
else:
    sys.exit("eulerstack could be imported")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

ROWS, TIME, BATCHES = 2, 48, 4
PROMPT, NEW = 20, 12
torch.set_num_threads(1)


def load(directory):
    """The model of a directory, by its own code."""
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True).eval()


def trained(model, batches, steps):
    """The losses of `steps` steps of AdamW over the batches in turn."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        ids = batches[step % len(batches)]
        loss = model(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


@torch.no_grad()
def in_pieces(model, ids, pieces):
    """The logits of a sequence that goes through the cache piece by piece."""
    cache, parts = None, []
    for piece in ids.split(pieces, dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    return torch.cat(parts, dim=1)


@torch.no_grad()
def distance(first, second):
    """The largest difference, relative to logits of unit scale."""
    return float((first - second).abs().max() / second.abs().max().clamp(min=1.0))


def outcome(directory, again, text, steps):
    """What came of one directory."""
    started = time.perf_counter()
    torch.manual_seed(0)
    model, tokenizer = load(directory), AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
    with open(text, encoding="utf-8") as file:
        ids = tokenizer(file.read(), return_tensors="pt").input_ids[0, : BATCHES * ROWS * TIME]
    batches = list(ids.reshape(BATCHES, ROWS, TIME))
    losses = trained(model, batches, steps)
    ids = batches[0]
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
    pieces = [PROMPT, 1, 1, 7, *[1] * (TIME - PROMPT - 9)]
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    prompt = {"input_ids": ids[:, :PROMPT], "attention_mask": torch.ones(ROWS, PROMPT, dtype=torch.long)}
    generated = [model.generate(**prompt, use_cache=cached, **options).tolist() for cached in (True, False)]
    model.save_pretrained(again)
    with torch.no_grad():
        reloaded = load(again)(ids, use_cache=False).logits
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": model.config.num_hidden_layers,
        "losses": losses,
        "finite": bool(whole.isfinite().all()),
        "cached": distance(in_pieces(model, ids, pieces), whole),
        "generated": generated,
        "reloaded": distance(reloaded, whole),
        "code": type(model).__module__,
        "seconds": time.perf_counter() - started,
    }


# Nobody is there to be asked anything.
requests, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115
for line in requests:
    try:
        result = outcome(*json.loads(line))
    except Exception:
        # What went wrong with one directory is told, and the next one is served.
        result = {"error": traceback.format_exc()}
    print("RESULT " + json.dumps(result), flush=True)
