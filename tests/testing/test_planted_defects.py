"""Defects planted into the example mixer, each of which is found by the one claim that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eulerstack.testing import CLAIMS, PACKAGE_CLAIMS, Example
from eulerstack.testing.claims import Package, verdict
from tests.testing.conftest import EXAMPLE

torch.set_num_threads(1)
TOTAL = "            total = total + self.weight[j] * reached * (position_ids >= j).unsqueeze(-1)\n"
CACHED = "        if cache is not None:\n"
BEGINNING = "        total = torch.zeros_like(x)\n"
OUTPUT = "        return self.out_proj(c * total)\n"
DECLARATION, MODULE = "plugin.py", "modules.py"


@dataclass(frozen=True)
class Plant:
    """A defect: in `file` of the package `old` becomes `new`; `claim` is the one that it breaks."""

    claim: str
    file: str
    old: str
    new: str


PLANTS: dict[str, Plant] = {
    "is wider than it projects": Plant("builds", MODULE, "3 * config.hidden_size", "2 * config.hidden_size"),
    "writes to its parameters in a forward": Plant(
        "constancy", MODULE, BEGINNING, "        self.weight.data.mul_(1.01)\n" + BEGINNING
    ),
    "writes to its input": Plant(
        "constancy", MODULE, BEGINNING, "        hidden_states.detach().add_(0.5)\n" + BEGINNING
    ),
    "begins with numbers that no seed decides about": Plant(
        "initialization",
        MODULE,
        "initialization.normal_(self.weight, std=self.kernel**-0.5)",
        "initialization.constant_(self.weight, torch.Generator().seed() % 97)",
    ),
    "has another number of parameters than it declares": Plant(
        "parameters", DECLARATION, "params=4 * d**2 + kernel * d", "params=4 * d**2 + (kernel + 1) * d"
    ),
    "says that a token leaves parameters alone": Plant(
        "parameters", DECLARATION, "params=4 *", "active_params=3 * d**2, params=4 *"
    ),
    "keeps more than it declares": Plant("state", DECLARATION, "(kernel - 1) * d", "(kernel - 2) * d"),
    "peeks at the future": Plant(
        "causality", MODULE, OUTPUT, "        total = total + 0.01 * x.roll(-1, 1)\n" + OUTPUT
    ),
    "mixes the rows of a batch": Plant(
        "batch", MODULE, OUTPUT, "        total = total - 0.1 * total.mean(0)\n" + OUTPUT
    ),
    "forgets what came before, when it decodes": Plant("cache", MODULE, 'cache.get("products")', "None"),
    "forgets the cache's offset": Plant(
        "cache", MODULE, BEGINNING, "        position_ids = position_ids - position_ids[:, :1]\n" + BEGINNING
    ),
    "ignores padding": Plant(
        "padding",
        MODULE,
        TOTAL,
        TOTAL.replace("            ", "            if kwargs.get('attention_mask') is None:\n                ", 1)
        + "            else:\n                total = total + self.weight[j] * reached\n",
    ),
    "sees the sequence that was packed before": Plant(
        "packing",
        MODULE,
        TOTAL,
        TOTAL.replace("(position_ids >= j)", "(position_ids.cummax(1).values >= j)"),
    ),
    "keeps its state where beams don't reach it": Plant(
        "beams",
        MODULE,
        'cache.put("products", products[:, 1 - self.kernel :])',
        'self.kept = products[:, 1 - self.kernel :]\n            cache.put("products", self.kept)',
    ),
    "can't be decoded with a static cache": Plant(
        "generation",
        MODULE,
        CACHED,
        "        if cache is not None and cache.max_cache_len:\n            products = products * 1.5\n" + CACHED,
    ),
    "detaches a gradient": Plant("gradients", MODULE, "self.weight[j] *", "self.weight[j].detach() *"),
    "throws half a gradient away": Plant("gradients", MODULE, "b * x)", "b.detach() * x)"),
    "computes in float32 what float64 was asked for": Plant(
        "gradients", MODULE, "(c * total)", "(c * total.float().to(x))"
    ),
    "drifts from its reference": Plant("reference", MODULE, "(c * total)", "(c * total * 1.000001)"),
    "sums up in bfloat16": Plant(
        "bfloat16",
        MODULE,
        TOTAL,
        "            for _ in range(256):\n    " + TOTAL.replace("self.weight[j]", "self.weight[j] / 256"),
    ),
    "overflows in bfloat16": Plant(
        "bfloat16",
        MODULE,
        OUTPUT,
        "        if x.dtype == torch.bfloat16:\n            total = total * 1e39 / 1e39\n" + OUTPUT,
    ),
    "has a field that does nothing": Plant(
        "fields", DECLARATION, '{"kernel": KERNEL}', '{"kernel": KERNEL, "ease": {"type": "number", "default": 1.0}}'
    ),
    "imports its own package where it is exported to": Plant(
        "export",
        MODULE,
        BEGINNING,
        "        from eulerstack_acme.plugin import KERNEL  # noqa: F401\n\n" + BEGINNING,
    ),
}
# The state that beams don't reach is read again unless a sequence has just begun.
READS_KEPT = (
    'None if cache is None else cache.get("products")',
    'None if cache is None or cache.get("products") is None else self.kept',
)
PACKAGE_PLANTS: dict[str, Plant] = {
    "comes from a package that can't be imported": Plant("installed", DECLARATION, "hookimpl\n\n", "hookimpls\n\n"),
    "has another primitive without an example": Plant(
        "complete",
        DECLARATION,
        "return [GATED_CONV]",
        'from dataclasses import replace\n\n    return [GATED_CONV, replace(GATED_CONV, name="vendor.acme.other")]',
    ),
    "needs torch to be listed": Plant("torch_free", DECLARATION, "from eulerstack", "import torch\nfrom eulerstack"),
    "has a message without translations": Plant(
        "messages",
        DECLARATION,
        "KERNEL = {",
        'from eulerstack.errors import Message\n\nSAYS = Message("never", (), "eulerstack_acme")\nKERNEL = {',
    ),
}


def planted(number: int, plant: Plant, folder: Path) -> Path:
    """The example with a defect, under names of its own."""
    project = shutil.copytree(EXAMPLE, folder / f"plant{number}")
    package = project / "src" / f"eulerstack_plant{number}"
    (project / "src" / "eulerstack_acme").rename(package)
    file = package / plant.file
    text = file.read_text(encoding="utf-8")
    assert text.count(plant.old) == 1, plant
    text = text.replace(plant.old, plant.new)
    file.write_text(text.replace(*READS_KEPT) if "self.kept" in plant.new else text, encoding="utf-8")
    for each in (project / "pyproject.toml", *package.glob("*.py")):
        renamed = each.read_text(encoding="utf-8").replace("eulerstack_acme", f"eulerstack_plant{number}")
        renamed = renamed.replace("vendor.acme.", f"vendor.plant{number}.").replace("-acme", f"-plant{number}")
        each.write_text(renamed.replace("GatedConv", f"GatedConv{number}"), encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def packages(install: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    """An installed package for each defect."""
    folder, found = tmp_path_factory.mktemp("plants"), {}
    for number, (name, plant) in enumerate((PLANTS | PACKAGE_PLANTS).items()):
        install(planted(number, plant, folder))
        # One layer shows what a mixer does wrong.
        given = {"layer_schedule.0.repeat": 1}
        example = Example("mixer", f"vendor.plant{number}.gated_conv", {"kernel": 3}, given=given)
        found[name] = Package(f"eulerstack-plant{number}", (example,))
    return found


@pytest.mark.parametrize("name", PLANTS)
def test_a_defect_is_found_by_the_claim_that_names_it(name: str, packages: dict[str, Package]) -> None:
    (example,) = packages[name].examples
    assert {claim for claim in CLAIMS if verdict(example, claim).state == "broken"} == {PLANTS[name].claim}


@pytest.mark.parametrize("name", PACKAGE_PLANTS)
def test_a_packages_defect_is_found_by_the_claim_that_names_it(name: str, packages: dict[str, Package]) -> None:
    found = {claim for claim in PACKAGE_CLAIMS if verdict(packages[name], claim).state == "broken"}
    assert found == {PACKAGE_PLANTS[name].claim}


def test_there_is_a_defect_for_every_claim_but_one() -> None:
    # What is printed is the core's business; a plugin can do nothing wrong there.
    claims = {plant.claim for plant in (PLANTS | PACKAGE_PLANTS).values()}
    assert (CLAIMS | PACKAGE_CLAIMS).keys() - claims == {"round_trip"}
