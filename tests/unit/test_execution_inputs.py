"""What the execution API takes, and what it refuses before anything is made."""

import json
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubespawner.slugs import safe_slug

from mlhub.execution import inputs
from mlhub.execution.runs import output_of
from mlhub.execution.slugs import LONGEST, slug


@pytest.mark.parametrize(
    "path",
    [
        "../alice/secret.ipynb",
        "work/../../bob/x.ipynb",
        "..",
        "/etc/passwd",
        "/home/jovyan/x.ipynb",
        "~/x.ipynb",
        "~bob/x.ipynb",
        "https://example.com/x.ipynb",
        "s3://bucket/x.ipynb",
        "gs://bucket/x.ipynb",
        "adl://x.ipynb",
        "abs://x.ipynb",
        "file:///etc/passwd",
        "git+https://example.com/x",
        "C:\\x.ipynb",
        "..\\x.ipynb",
        "C:x.ipynb",
        "x.ipynb\0.txt",
        "x\n.ipynb",
        "x\u2028.ipynb",
        "\ud800.ipynb",
        "",
        ".",
        "./",
        "work/",
        ".ipynb",
        "work/.ipynb",
        " .ipynb",
        "a" * 300,
        "é" * 150,
        "a/" * 300 + "x.ipynb",
    ],
)
def test_P4_a_path_out_of_the_home_and_an_address_are_refused(path):
    with pytest.raises(ValueError, match=r"path|name|address"):
        inputs.notebook_path(path)


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("report", "report.ipynb"),
        ("report.ipynb", "report.ipynb"),
        ("./work//report.ipynb", "work/report.ipynb"),
        ("my report (2).ipynb", "my report (2).ipynb"),
        ("données/été.ipynb", "données/été.ipynb"),
        ("{name}.ipynb", "{name}.ipynb"),
        ("a..b/..c.ipynb", "a..b/..c.ipynb"),
        ("report.txt", "report.txt.ipynb"),
        ("10:30 review.ipynb", "10:30 review.ipynb"),
    ],
)
def test_P1_an_ordinary_name_is_taken(path, clean):
    assert inputs.notebook_path(path) == clean
    assert inputs.notebook_path(clean) == clean


@given(st.text(max_size=60))
def test_P4_no_path_that_is_taken_leads_out(path):
    try:
        clean = inputs.notebook_path(path)
    except ValueError:
        return
    assert not clean.startswith("/")
    assert ".." not in clean.split("/")
    assert clean.endswith(".ipynb")
    assert inputs.notebook_path(clean) == clean


@pytest.mark.parametrize(
    "name",
    [
        "a; import os; os.system('x')",
        "a=1\nimport os",
        "a b",
        "1a",
        "a-b",
        "",
        "a.b",
        "a[0]",
        "\uff41",
        "é",
        "class",
        "None",
        "lambda",
        "a" * 101,
        "a\n",
    ],
)
def test_P4_a_parameters_name_that_would_be_code_is_refused(name):
    with pytest.raises(ValueError, match="identifier"):
        inputs.parameters({name: 1})


@given(st.text(min_size=1, max_size=30))
def test_P4_every_name_that_is_taken_is_an_identifier(name):
    try:
        inputs.parameters({name: 1})
    except ValueError:
        return
    assert name.isidentifier()
    assert not keyword.iskeyword(name)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [float("-inf")],
        {"a": [{"b": float("nan")}]},
        2**63,
        "\ud800",
        {"\udfff": 1},
        json.loads("[" * 21 + "]" * 21),
    ],
)
def test_P6_a_value_that_not_every_reader_reads_alike_is_refused(value):
    with pytest.raises(ValueError, match="parameter"):
        inputs.parameters({"a": value})


def test_P6_ordinary_values_are_taken():
    values = {"a": 1, "b": -0.5, "c": None, "d": [True, "x\0"], "e": {"any key; at all": "$(X)"}}
    assert inputs.parameters(values) == values
    with pytest.raises(ValueError, match="200"):
        inputs.parameters({f"p{n}": 1 for n in range(201)})


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"[" * 24, True),
        (b"[" * 23, False),
        (b'{"a":' * 100_000, True),
        (b'"' + b"[" * 1000 + b'"', False),
        (b'"\\"' + b"[" * 1000, False),
        (b"[]" * 1000, False),
    ],
)
def test_P6_depth_is_known_before_a_parser_recurses(body, deep):
    assert inputs.depth_of(body, 23) is deep


@given(st.text(min_size=1, max_size=80))
def test_M3_a_persons_slug_is_the_spawners(name):
    assert slug(name) == safe_slug(name, max_length=LONGEST)


@pytest.mark.parametrize(
    "name", ["alice", "alice@example.com", "a--b", "A", "9", "-", "é", "a" * 48, "a" * 49, "a-"]
)
def test_M3_a_home_is_found_under_the_name_that_the_spawner_gave_it(name):
    assert slug(name) == safe_slug(name, max_length=LONGEST)


def test_P1_the_output_is_named_after_the_notebook_and_the_moment():
    assert output_of("work/sum.ipynb", 0.0) == "work/sum_output_19700101_000000.ipynb"
    assert output_of("a.b.ipynb", 86399.9) == "a.b_output_19700101_235959.ipynb"
