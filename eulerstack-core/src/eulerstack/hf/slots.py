"""Cache slots: each mixer instance owns one, in the order of the layers and, within a mixer that holds others, of them.

`config.layer_types` has one entry a slot, and a mixer is given its slot's index as `layer_idx`.
"""

from typing import Any

# The slot of a layer's mixer, or the slots of the mixers that it holds.
Slots = int | tuple[int, ...]


def slot_mixers(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The mixers that own a layer's slots: those that its mixer holds, or it itself."""
    mixer = block["mixer"]
    return list(mixer["params"][mixer["holds"]].values()) if "holds" in mixer else [mixer]


def slots_of_layers(blocks: list[dict[str, Any]]) -> list[Slots]:
    """The slots of each layer, `blocks` being the layers in their order."""
    slots: list[Slots] = []
    first = 0
    for block in blocks:
        count = len(slot_mixers(block))
        slots.append(tuple(range(first, first + count)) if "holds" in block["mixer"] else first)
        first += count
    return slots


def first_slot(slots: Slots) -> int:
    """The slot by which a layer's mixer is made; those of the mixers that it holds follow."""
    return slots if isinstance(slots, int) else slots[0]


def of_slots(values: list[Any], slots: Slots) -> Any:
    """What a layer's mixer is given of `values`, one a slot: its own, or a tuple for those that it holds."""
    return values[slots] if isinstance(slots, int) else tuple(values[slot] for slot in slots)
