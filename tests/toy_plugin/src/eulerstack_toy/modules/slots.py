"""Which norms a layer holds for the gated residual; the declaration and the module both ask."""

GATED_SLOTS = {
    "pre": ("{branch}_norm",),
    "post": ("{branch}_norm",),
    "output": ("{branch}_output_norm",),
    "sandwich": ("{branch}_norm", "{branch}_output_norm"),
}


def gated_slots(position: str, has_ffn: bool) -> tuple[str, ...]:
    """Names of a layer's norms; `position` is the norm's word in the spec."""
    branches = ("mixer", "ffn") if has_ffn else ("mixer",)
    return tuple(slot.format(branch=branch) for branch in branches for slot in GATED_SLOTS[position])
