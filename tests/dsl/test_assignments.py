"""`--set PATH=VALUE`: the spec is the one that the file would say with that value in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eulerstack.dsl.source import Spec, parse_text
from eulerstack.errors import ValidationError

TEXT = """\
model: { name: tiny, d_model: 64 }
let: { width: 8 }
layer_schedule:
  - { template: a, repeat: 2 }
  - { template: b.c }
layer_templates:
  a: { mixer: { type: attention } }
  b.c: { mixer: { type: mamba } }
"""


def read(*assignments: str) -> Spec:
    return parse_text(TEXT, "tiny.yml", assignments)


@pytest.mark.parametrize(
    ("assignment", "before", "after"),
    [
        ("model.d_model=512", "d_model: 64", "d_model: 512"),
        ("layer_schedule[1].repeat=3", "template: b.c }", "template: b.c, repeat: 3 }"),
        ("layer_schedule[0]={template: b.c}", "{ template: a, repeat: 2 }", "{ template: b.c }"),
        ("layer_templates.b.c.mixer.type=retnet", "type: mamba", "type: retnet"),
        ("model.vendor.acme.x=[1, 2]", "name: tiny,", "name: tiny, vendor.acme.x: [1, 2],"),
        ("training_hints.scaling.base_width=4", "let:", "training_hints: { scaling: { base_width: 4 } }\nlet:"),
        ("model.d_model=${8 * let.width}", "d_model: 64", 'd_model: "${8 * let.width}"'),
        ("let.width=9", "width: 8", "width: 9"),
        ("model.name=yes", "name: tiny", "name: yes"),
        ('model.name="a=b"', "name: tiny", 'name: "a=b"'),
        ("model.d_model=", "d_model: 64", "d_model: "),
    ],
)
def test_an_assignment_is_the_same_as_writing_it_in_the_file(assignment: str, before: str, after: str) -> None:
    assert before in TEXT
    spec = read(assignment)
    assert spec == parse_text(TEXT.replace(before, after), "tiny.yml")
    assert spec.assigned and not parse_text(TEXT, "tiny.yml").assigned


def test_the_last_of_several_wins_and_each_sees_the_ones_before() -> None:
    spec = read("model.x.y=1", "model.x.z=2", "model.d_model=1", "model.d_model=2")
    assert spec["model"] == {"name": "tiny", "d_model": 2, "x": {"y": 1, "z": 2}}


def test_assigned_parts_are_placed_at_the_option_and_all_others_in_the_file() -> None:
    spec = read("layer_schedule[0]={template: b.c, repeat: 1}", "training_hints.seed=3")
    for path in ("layer_schedule[0]", "layer_schedule[0].repeat"):
        assert str(spec.locate(path)) == "--set layer_schedule[0]:1:1"
    assert str(spec.locate("training_hints")) == "--set training_hints.seed:1:1"
    assert str(spec.locate("layer_schedule[1].template")) == "tiny.yml:5:17"
    assert str(spec.locate_key(("model", "d_model"))) == "tiny.yml:1:22"


@pytest.mark.parametrize(
    ("assignment", "place", "what", "fix"),
    [
        (
            "model.d_model",
            "--set model.d_model:1:1",
            "an assignment has the form path=value",
            "--set model.d_model=512",
        ),
        ("model.d_model: 12", "--set model.d_model: 12:1:1", "the form path=value", "--set model.d_model=12"),
        ("a." * 3000 + "b=1", "--set " + "a." * 3000 + "b:1:1", "more than 40 deep", "at most 40"),
        ("=3", "--set :1:1", "is not a path", "layer_schedule[0].repeat"),
        ("a..b=3", "--set a..b:1:1", "is not a path", "layer_schedule[0].repeat"),
        ("[0]=3", "--set [0]:1:1", "is not a path", "layer_schedule[0].repeat"),
        ("a.=3", "--set a.:1:1", "is not a path", "layer_schedule[0].repeat"),
        ("layer_schedule[2].x=3", "--set layer_schedule[2].x:1:1", "numbered from 0 to 1", "layer_schedule[0]"),
        ("layer_schedule.x=3", "--set layer_schedule.x:1:1", "numbered from 0 to 1", "layer_schedule[0]"),
        ("model[0]=3", "--set model[0]:1:1", "this is not a list", "--set model="),
        ("model.name.x=3", "--set model.name.x:1:1", "this has no keys", "--set model.name="),
        ("model.d_model=${let.w}", "--set model.d_model:1:3", "holds no name w", "Give w a value"),
        ("model.d_model={a", "--set model.d_model:1:1", "is not closed", "Type }"),
        ("model.d_model=*a", "--set model.d_model:1:1", "", ""),
    ],
)
def test_what_cannot_be_assigned_is_a_located_error(assignment: str, place: str, what: str, fix: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(assignment)
    problem = caught.value.diagnostics[0]
    assert str(problem.location) == place
    assert what in problem.what.render(str) and fix in problem.fix.render(str)


def test_all_faulty_assignments_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        read("model.d_model", "a..b=1", "model.name.x=3")
    assert len(caught.value.diagnostics) == 3
