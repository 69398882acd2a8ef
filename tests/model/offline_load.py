"""Run as a script, in a process where eulerstack can't be imported: loads a directory and saves what it computes.

Arguments: the directory, a file for the results, optionally a directory to save the model into and load it from again.
"""

import sys


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
from transformers import AutoModel, AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(1)
directory, results, *again = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)
if again:
    model.save_pretrained(again[0])
    model = AutoModelForCausalLM.from_pretrained(again[0], trust_remote_code=True)
base = AutoModel.from_pretrained(directory, trust_remote_code=True)
ids = torch.arange(24).reshape(2, 12) % model.config.vocab_size
with torch.no_grad():
    logits = model(ids).logits
    hidden = base(ids).last_hidden_state
generated = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
torch.save({"logits": logits, "hidden": hidden, "generated": generated, "dtype": str(model.dtype)}, results)
