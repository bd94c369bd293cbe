"""The picture of the components is the one that the program registers now.

`UPDATE_PICTURE=1 pytest tests/unit/test_architecture.py` draws it anew; look at it, then commit.
"""

import os
from dataclasses import replace

from tests.unit.recorder import ROOT, platform
from tools.architecture import boxes, layers, reduced, svg

PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"


def test_the_picture_is_up_to_date():
    drawn = svg(platform("local").registrations, "The components of the stack local")
    if os.environ.get("UPDATE_PICTURE"):
        PICTURE.write_text(drawn, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == drawn, "UPDATE_PICTURE=1 draws it anew"


def test_it_shows_every_component_and_every_resource_is_counted():
    for stack in ("local", "prod"):
        registrations = platform(stack).registrations
        found = boxes(registrations)
        urns = {box.urn for box in found}
        tops = [r for r in registrations if "::pulumi:pulumi:Stack::" in r.parent]
        assert urns == {r.urn for r in tops if not r.custom}
        providers = sum(r.type.startswith("pulumi:providers:") for r in registrations)
        counted = sum(number for box in found for _, _, number in box.makes)
        assert counted == sum(r.custom for r in registrations) - providers


def test_a_line_goes_down_and_none_is_drawn_twice():
    found = boxes(platform("local").registrations)
    row = {box.urn: number for number, boxes_ in enumerate(layers(found)) for box in boxes_}
    names = {box.urn: box.name for box in found}
    lines = reduced(found)
    assert all(row[other] < row[urn] for urn, needs in lines.items() for other in needs)
    execution = next(box for box in found if box.kind == "Execution")
    assert "identity" in {
        names[urn] for box in found for urn in box.needs if box.name == "workspaces"
    }
    assert "images" in {names[urn] for urn in execution.needs}
    assert {names[urn] for urn in lines[execution.urn]} >= {"execution-clients"}
    assert "identity" not in {names[urn] for urn in lines[execution.urn]}


def test_the_order_in_which_the_engine_is_told_changes_nothing():
    registrations = platform("local").registrations
    assert svg(registrations[::-1], "x") == svg(registrations, "x")


def test_a_resource_that_the_program_stops_making_changes_the_picture():
    registrations = platform("local").registrations
    fewer = [r for r in registrations if not r.type.endswith(":LimitRange")]
    assert svg(fewer, "x") != svg(registrations, "x")
    alone = [replace(r, dependencies=frozenset()) for r in registrations]
    assert svg(alone, "x") != svg(registrations, "x")
