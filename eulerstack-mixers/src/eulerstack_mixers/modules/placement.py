"""Which norms a decoder layer holds. Free of torch, because the cost model asks as well as the module."""

NORM_SLOTS = {
    "sequential": {
        "pre": ("mixer_norm", "ffn_norm"),
        "post": ("mixer_norm", "ffn_norm"),
        "output": ("mixer_output_norm", "ffn_output_norm"),
        "sandwich": ("mixer_norm", "mixer_output_norm", "ffn_norm", "ffn_output_norm"),
    },
    "parallel": {
        "pre": ("mixer_norm",),
        "post": ("mixer_norm",),
        "output": ("mixer_output_norm", "ffn_output_norm"),
        "sandwich": ("mixer_norm", "mixer_output_norm", "ffn_output_norm"),
    },
}
FFN_SLOTS = ("ffn_norm", "ffn_output_norm")


def norm_slots(residual: str, position: str, has_ffn: bool = True) -> tuple[str, ...]:
    """Names of a layer's norms, in the order of their use; without a feed-forward block none that belongs to it.

    `pre` normalises a branch's input, `post` the sum after the branch, `output` the branch's output before the sum,
    `sandwich` both its input and its output. A parallel layer feeds both branches from one shared norm.
    """
    slots = NORM_SLOTS[residual][position]
    return slots if has_ffn else tuple(slot for slot in slots if slot not in FFN_SLOTS)
