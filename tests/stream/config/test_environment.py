"""Environment variables and --set: where a value may come from, beside the file."""

import pytest

from streamrnn.errors import ConfigError
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.toml_text import apply_overrides, interpolate


def filled(text, **environment):
    data, problems = interpolate({"key": text}, environment)
    assert problems == []
    return data["key"]


def test_variables_are_filled_in():
    assert filled("s3://${BUCKET}/x-${DAY:-today}", BUCKET="b") == "s3://b/x-today"
    assert filled("${DAY:-today}", DAY="monday") == "monday"
    assert filled("${DAY:-today}", DAY="") == "today"
    assert filled("${DAY}", DAY="") == ""
    assert filled("${DAY:-}") == ""


def test_what_a_variable_holds_is_not_filled_in_again():
    assert filled("${A}", A="${B} $${", B="x") == "${B} $${"


def test_dollars_that_begin_no_variable_stay():
    assert filled("cost $5, $HOME, $$, $${HOME}", HOME="/h") == "cost $5, $HOME, $$, ${HOME}"


def test_only_values_are_touched_at_any_depth():
    data, problems = interpolate({"${A}": [{"x": "${A}"}, 3, True]}, {"A": "1"})
    assert (data, problems) == ({"${A}": [{"x": "1"}, 3, True]}, [])


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-b}", "a ${A:?} b"])
def test_a_reference_of_another_form_is_refused(text):
    _, (problem,) = interpolate({"t": {"k": text}}, {"A": "1"})
    assert problem.path == ("t", "k")
    assert "invalid variable in" in problem.message


def test_an_unset_variable_names_its_key_and_line(tmp_path, monkeypatch):
    monkeypatch.delenv("STREAMRNN_NOT_SET", raising=False)
    file = tmp_path / "p.toml"
    file.write_text(
        '[source]\nkey = "k"\nfeatures = ["a"]\npath = "${STREAMRNN_NOT_SET}/x"\n'
        '[model]\npath = "m"\n[window]\nlanes = 0\n'
    )
    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert str(caught.value) == (
        f"{file} has 2 problems:\n"
        f"  {file}:4: source.path: environment variable STREAMRNN_NOT_SET is not set; "
        "set it, or add a default: ${STREAMRNN_NOT_SET:-default}\n"
        f"  {file}:8: window.lanes: expected an integer from 1 to 2147483647, received "
        "the integer 0"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("1.5", 1.5),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ("{ a = 1 }", {"a": 1}),
        ('"32"', "32"),
        ("out/weather", "out/weather"),
        ("s3://b/x", "s3://b/x"),
        ("a = b", "a = b"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
        ("-", "-"),
    ],
)
def test_a_value_is_toml_else_a_string(text, value):
    data = {}
    origins, problems = apply_overrides(data, [f"a.b={text}"])
    assert (data, problems) == ({"a": {"b": value}}, [])
    assert origins == {("a", "b"): f"--set a.b={text}"}


def test_later_overrides_win_and_quoted_keys_hold_dots():
    data = {"a": {"b": 1, "c": 2}}
    apply_overrides(data, ["a.b=2", "a.b=3", 'a."x.y"=4'])
    assert data == {"a": {"b": 3, "c": 2, "x.y": 4}}


@pytest.mark.parametrize("override", ["window.lanes", "=3", "a b=3", "a.=3", "#a=3", "a\nb=3"])
def test_an_override_of_another_form_is_refused(override):
    data = {}
    _, (problem,) = apply_overrides(data, [override])
    assert problem.origin == f"--set {override}"
    assert "expected KEY=VALUE" in problem.message
    assert data == {}


def test_an_override_below_a_value_is_refused():
    _, (problem,) = apply_overrides({"a": {"b": 1}}, ["a.b.c=2"])
    assert "a.b is not a table" in problem.message
