"""Cache slots: each evaluation of a mixer owns one, of a memory that reading changes, and a merge that attends.

They are numbered in the order of the stages, of the layers in them, of a layer's evaluations in one pass and, within a
mixer that holds others, of those; a memory's comes behind those of its layer's mixers, a merge's behind those of its
streams.

`config.layer_types` has one entry a slot, and a mixer is given its slot's index as `layer_idx`.
"""

from collections.abc import Sequence
from typing import Any

from eulerstack.hf.ecosystem import layers_of_stages

# The slot of a layer's mixer, or the slots of the mixers that it holds.
Slots = int | tuple[int, ...]


def slot_mixers(block: dict[str, Any]) -> list[dict[str, Any]]:
    """The mixers that own a layer's slots: those that its mixer holds, or it itself."""
    mixer = block["mixer"]
    return list(mixer["params"][mixer["holds"]].values()) if "holds" in mixer else [mixer]


def slot_owners(block: dict[str, Any]) -> list[dict[str, Any]]:
    """Who owns a layer's slots: its mixers, and its memory where reading changes it."""
    memories = [block["memory"]] if "memory" in block else []
    return slot_mixers(block) + [memory for memory in memories if memory["params"]["update_at_inference"]]


def owners_of_slots(architecture: dict[str, Any]) -> list[dict[str, Any]]:
    """The mixer, memory or merge that owns each slot."""
    owners: list[dict[str, Any]] = []
    for stage, layers in zip(architecture["layers"], layers_of_stages(architecture), strict=True):
        for block in layers:
            owners += slot_owners(architecture["blocks"][block]) * evaluations_in(stage)
        if merge_has_slot(stage):
            owners.append(stage["merge"])
    return owners


def slots_from(first: int, block: dict[str, Any]) -> Slots:
    """The slots of a layer in one evaluation, of which `first` is the first."""
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
