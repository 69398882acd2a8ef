"""Cache slots: each evaluation of a mixer owns one, of a memory that reading changes, and a merge that attends.

They are numbered in the order of the stages, of the layers in them, of a layer's evaluations in one pass and, within a
mixer that holds others, of those; a memory's comes behind those of its layer's mixers, a merge's behind those of its
streams.

`config.layer_types` has one entry a slot, and a mixer is given its slot's index as `layer_idx`.
"""

from collections.abc import Sequence
from typing import Any

from eulerstack.hf.ecosystem import layers_of_stages

# Tokens under a convolution that changes a layer's width.
WIDTH_TAPS = 3
# The slot of a layer's mixer, or the slots of the mixers that it holds.
Slots = int | tuple[int, ...]


def slot_mixers(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The mixers that own a layer's slots: those that its mixer holds, or it itself."""
    mixer = block["mixer"]
    return list(mixer["params"][mixer["holds"]].values()) if "holds" in mixer else [mixer]


def projection_slots(shape_change: Any) -> int:
    """How many slots a layer owns for what changes its width: one for convolutions."""
    return int(shape_change is not None and shape_change["projection"] == "conv1d")


def slot_owners(block: dict[str, Any]) -> list[dict[str, Any]]:
    """Who owns a layer's slots: its mixers, its memory where reading changes it, what changes its width."""
    memories = [block["memory"]] if "memory" in block else []
    change = block.get("shape_change")
    return [
        *slot_mixers(block),
        *(memory for memory in memories if memory["params"]["update_at_inference"]),
        *[change] * projection_slots(change),
    ]


def projection_slot(first: int, block: dict[str, Any]) -> int | None:
    """The slot of what changes a layer's width, `first` being the layer's first; None where it needs none."""
    if not projection_slots(block.get("shape_change")):
        return None
    return first + len(slot_owners(block)) - 1


def owners_of_slots(architecture: dict[str, Any]) -> list[dict[str, Any]]:
    """Who owns each slot of the model: see `slot_owners`; of a stage of streams also its merge."""
    owners: list[dict[str, Any]] = []
    for stage, layers in zip(architecture["layers"], layers_of_stages(architecture), strict=True):
        for block in layers:
            owners += slot_owners(architecture["blocks"][block]) * evaluations_in(stage)
        if merge_has_slot(stage):
            owners.append(stage["merge"])
    return owners


def slots_from(first: int, block: dict[str, Any]) -> Slots:
    """The slots of a layer's mixers in one evaluation, of which `first` is the first."""
    return tuple(range(first, first + len(slot_mixers(block)))) if "holds" in block["mixer"] else first


def slots_of_stages(architecture: dict[str, Any]) -> list[list[Slots]]:
    """For each stage the slots of each of its layers' mixers in its first evaluation; those of the others follow.

    At the end stands the slot of the stage's merge, where that has one.
    """
    found, first = [], 0
    for stage, layers in zip(architecture["layers"], layers_of_stages(architecture), strict=True):
        slots: list[Slots] = []
        for block in (architecture["blocks"][index] for index in layers):
            slots.append(slots_from(first, block))
            first += len(slot_owners(block)) * evaluations_in(stage)
        if merge_has_slot(stage):
            slots.append(first)
            first += 1
        found.append(slots)
    return found


def merge_has_slot(stage: Any) -> bool:
    """Whether a stage merges streams in a way that remembers tokens."""
    return not isinstance(stage, int) and stage.get("merge", {}).get("slot", False)


def evaluations_in(stage: Any) -> int:
    """How often one pass evaluates each layer of a stage."""
    return 1 if isinstance(stage, int) else stage.get("evaluations", 1)


def first_slot(slots: Slots) -> int:
    """The slot by which a layer's mixer is made; those of the mixers that it holds follow."""
    return slots if isinstance(slots, int) else slots[0]


def of_slots(values: Sequence[Any], slots: Slots | None) -> Any:
    """What a layer's mixer is given of `values`, one a slot: its own, or a tuple for those that it holds.

    None stands for all slots, which is what a stage of several layers is given.
    """
    if slots is None:
        return values
    return values[slots] if isinstance(slots, int) else tuple(values[slot] for slot in slots)
