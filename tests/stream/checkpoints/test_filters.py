"""Filters of output rows: those of SQL, as plain Python evaluates them with None."""

from __future__ import annotations

import datetime
import operator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import slow

from streamrnn.errors import ConfigError
from streamrnn.stream.checkpoints.filters import row_filter

SCHEMA = pa.schema(
    [
        ("p", pa.float32()),
        ("q", pa.float64()),
        ("n", pa.int32()),
        ("origin", pa.string()),
        ("flag", pa.bool_()),
        ("t", pa.timestamp("us", "America/New_York")),
        ("the day", pa.date32()),
        ("blob", pa.binary()),
    ]
)
COMPARE = {"=": operator.eq, "==": operator.eq, "!=": operator.ne, "<>": operator.ne}
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NUMBERS = [-2, 0, 1, 3]
FLOATS = [-0.5, 0.0, 0.1, 0.9, 3.0]
TEXTS = ["JFK", "O'Hare", "", "and"]
VALUES: dict[str, list[Any]] = {"p": FLOATS, "q": FLOATS, "n": NUMBERS, "origin": TEXTS}
VALUES["flag"] = [True, False]

# Nested tuples, which are written as text and evaluated here.
Tree = tuple[Any, ...]


def comparisons() -> st.SearchStrategy[Tree]:
    def of(column: str) -> st.SearchStrategy[Tree]:
        values = st.sampled_from(VALUES[column])
        signs = st.sampled_from([*COMPARE] if column == "flag" else [*COMPARE, *ORDER])
        return st.one_of(
            st.tuples(st.just("compare"), signs, st.just(column), values, st.booleans()),
            st.tuples(st.just("in"), st.just(column), st.lists(values, min_size=1, max_size=3)),
            st.tuples(st.just("null"), st.just(column)),
        )

    columns = st.tuples(st.just("columns"), st.sampled_from([*COMPARE, *ORDER]))
    return st.one_of(*map(of, VALUES), columns)


TREES = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=6,
)


def literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def text_of(tree: Tree) -> str:
    match tree:
        case ("compare", sign, column, value, turned):
            sides = [literal(value), column] if turned else [column, literal(value)]
            return f" {sign} ".join(sides)
        case ("columns", sign):
            return f"q {sign} n"
        case ("in", column, values):
            return f"{column} IN ({', '.join(map(literal, values))})"
        case ("null", column):
            return f"{column} is null"
        case ("not", inner):
            return f"not ({text_of(inner)})"
        case (word, left, right):
            return f"({text_of(left)}) {word} ({text_of(right)})"
    raise AssertionError(tree)


def as_in(column: str, value: Any) -> Any:
    """A literal of the type of its column."""
    return float(np.float32(value)) if column == "p" else value


def truth(tree: Tree, row: dict[str, Any]) -> bool | None:
    """Three values: null compared with anything is None."""
    match tree:
        case ("compare", sign, column, value, turned):
            sides = [row[column], as_in(column, value)]
            left, right = sides[::-1] if turned else sides
            return None if row[column] is None else {**COMPARE, **ORDER}[sign](left, right)
        case ("columns", sign):
            if row["q"] is None or row["n"] is None:
                return None
            return bool({**COMPARE, **ORDER}[sign](row["q"], row["n"]))
        case ("in", column, values):
            value = row[column]
            return None if value is None else value in [as_in(column, item) for item in values]
        case ("null", column):
            return row[column] is None
        case ("not", inner):
            found = truth(inner, row)
            return None if found is None else not found
        case ("and", left, right):
            both = [truth(left, row), truth(right, row)]
            return False if False in both else None if None in both else True
        case ("or", left, right):
            both = [truth(left, row), truth(right, row)]
            return True if True in both else None if None in both else False
    raise AssertionError(tree)


def some_rows() -> pa.Table:
    rng = np.random.default_rng(1)
    columns = {
        name: pa.array(
            [None if rng.random() < 0.2 else values[rng.integers(len(values))] for _ in range(60)],
            SCHEMA.field(name).type,
        )
        for name, values in VALUES.items()
    }
    return pa.table(columns)


ROWS = some_rows()


@settings(deadline=None, max_examples=300)
@given(TREES)
def test_rows_that_pass_are_those_of_plain_python(tree: Tree) -> None:
    found = ROWS.filter(row_filter(text_of(tree), ROWS.schema))
    assert found.to_pylist() == [row for row in ROWS.to_pylist() if truth(tree, row) is True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p = 0.9", 0.9),  # and not the float64 that 0.9 is
        ("p >= 0.9", 0.9),
        ("not p > 0.9", 0.9),
        ("P.9 = 1", None),
    ],
)
def test_a_literal_has_the_type_of_its_column(text: str, expected: float | None) -> None:
    table = pa.table({"p": pa.array([0.9], pa.float32())})
    if expected is None:
        with pytest.raises(ConfigError, match="where: character 2"):
            row_filter(text, table.schema)
    else:
        assert len(table.filter(row_filter(text, table.schema))) == 1


def test_times_without_a_zone_are_in_that_of_their_column() -> None:
    time = datetime.datetime(2013, 1, 5, 12, tzinfo=datetime.UTC)
    table = pa.table({"t": pa.array([time], SCHEMA.field("t").type)})
    for text, rows in (
        ("t = '2013-01-05T07:00'", 1),
        ("t = '2013-01-05 12:00Z'", 1),
        ("t > '2013-01-05'", 1),
        ("t > '2013-01-05 07:00:00.000001'", 0),
    ):
        assert len(table.filter(row_filter(text, table.schema))) == rows, text


MISTAKES = [
    ("p >", 4, "expected a column or a literal, received the end"),
    ("pp > 1", 1, '`pp` is not a column of the output; did you mean "p"?'),
    ("origin = JFK", 10, "text needs single quotes"),
    ("n = 2.5", 5, "expected an integer, as `n` is int32"),
    ("n = 3000000000", 5, "3000000000 is not a value of `n`, which is int32"),
    ("p > 'x'", 5, "expected a number, as `p` is float"),
    ("p > true", 5, "expected a number, as `p` is float"),
    ("origin = 1", 10, "expected 'text', as `origin` is string"),
    ("flag = 1", 8, "expected true or false, as `flag` is bool"),
    ("flag > true", 1, "true and false have no order"),
    ("t > 'yesterday'", 5, "'yesterday' is not a value of `t`"),
    ('"the day" = 5', 13, "expected a 'time', as `the day` is date32"),
    ("p = origin", 5, "cannot compare `origin`, which is string, with `p`, which is float"),
    ("blob = 'x'", 1, "`blob` is binary, which filters cannot compare (`is null` works)"),
    ("t > '2013-11-03T01:30'", 5, "is not exactly one time in America/New_York"),
    (" or ".join(["p > 1"] * 1001), 9001, "more than 1,000 comparisons"),
    ("p", 2, "expected a comparison, `in` or `is`, received the end"),
    ("(p > 1", 7, "expected `)`, received the end"),
    ("p > 0.9 & n = 1", 9, "`&` is not supported in a filter"),
    ("origin = 'x", 10, "the quote ' is not closed"),
    ("p = null", 5, "nothing equals null: write `is null`"),
    ("p is 1", 6, "expected `null` or `not null`, received `1`"),
    ("1 = 2", 1, "received two literals"),
    ("p + 1 > 2", 3, "columns are compared as they are"),
    ("p in ()", 7, "expected a literal, received `)`"),
    ("p in (n)", 7, "expected a literal, received the column `n`"),
    ("p not 3", 7, "expected `in`, received `3`"),
    ("p > 1 p", 7, "expected `and`, `or` or the end, received `p`"),
    ("", 1, "expected a column, received the end"),
    ("(" * 1000, 101, "nested deeper than 100"),
    ("__import__('os')", 11, "expected a comparison, `in` or `is`, received `(`"),
]


@pytest.mark.parametrize(("text", "place", "message"), MISTAKES, ids=[m[0][:20] for m in MISTAKES])
def test_a_mistake_is_pointed_at(text: str, place: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        row_filter(text, SCHEMA)
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith(f"[alerts] where: character {place}: ")
    assert message in first
    assert shown == f"  {text}"
    assert caret == f"  {' ' * (place - 1)}^"


@settings(deadline=None)
@given(st.text(alphabet="pqn'\"()=<>!., 019 andornotinisnull", max_size=30))
def test_any_text_is_a_filter_or_one_error(text: str) -> None:
    with suppress(ConfigError):
        row_filter(text, SCHEMA)


def found(text: str, values: list[Any], kind: pa.DataType, other: Any = None) -> list[int]:
    """Which rows pass: of column x, and y if there is another."""
    columns = {"x": pa.array(values, kind), "row": pa.array(range(len(values)))}
    if other is not None:
        columns["y"] = other
    table = pa.table(columns)
    rows: list[int] = table.filter(row_filter(text, table.schema))["row"].to_pylist()
    return rows


def test_columns_and_literals_are_those_of_sql_and_not_of_python() -> None:
    table = pa.table({"from": ["a\\n", "O'Hare"], "\ufb01": [7, 8], 'the "x"': [None, 0.5]})
    for text, rows in (
        ("from = 'a\\n' and \ufb01 = 007", 1),
        ("FROM is null or from = 'O''Hare'", None),
        ('from = \'O\'\'Hare\'\nAND "the ""x""" in (+.5)', 1),
        ('"the ""x""" is\tNOT null', 1),
        ("from in ('O''Hare') # and more", None),
        ("7 < \ufb01 < 9", None),
        ("\ufb01 in (7,)", None),
        ("(\ufb01) = 7", None),
    ):
        if rows is None:
            with pytest.raises(ConfigError, match="where: character"):
                row_filter(text, table.schema)
        else:
            assert table.filter(row_filter(text, table.schema)).num_rows == rows, text


@pytest.mark.parametrize("opening", ["(", "not ", "(x = 1 and ", "(x < 0 or x = 1 and "])
def test_a_filter_of_the_greatest_depth_is_evaluated(opening: str) -> None:
    closing = ")" if "(" in opening else ""
    passing = [0] if opening == "not " else [1]  # 99 of them
    assert found(opening * 99 + "x = 1" + closing * 99, [0, 1], pa.int8()) == passing
    with pytest.raises(ConfigError, match="nested deeper than 100"):
        found(opening * 100 + "x = 1" + closing * 100, [0, 1], pa.int8())


@slow
def test_long_filters_are_evaluated_and_a_list_is_looked_up() -> None:
    """Slow: 20,000 values, and a thousand conditions."""
    values = ", ".join(f"'{number}'" for number in range(20_000))
    assert found(f"x in ({values})", ["7", "x", None], pa.string()) == [0]
    assert found(f"x not in ({values})", ["7", "x", None], pa.string()) == [1]
    assert found(" and ".join(["x > 0"] * 1000), [1, 0], pa.int8()) == [0]


def test_a_list_is_of_equal_values() -> None:
    assert found("x in (0, 0.9)", [-0.0, 0.9, 1.0, None], pa.float32()) == [0, 1]
    assert found("x in (0, 1)", [-0.0, 0.9, 1.0, None], pa.float16()) == [0, 2]
    assert found("not x in (0)", [-0.0, 0.9, None], pa.float64()) == [1]


@pytest.mark.parametrize("sign", [*COMPARE, *ORDER])
@pytest.mark.parametrize(
    "value", [300, 127, -128, -129, 1.5, -1.5, 2.0, 1e30, -1e400, 1e400, 2**64 - 1]
)
def test_integers_are_compared_with_any_number_in_order(sign: str, value: float) -> None:
    for kind, values in (
        (pa.int8(), [-128, -2, -1, 1, 2, 127, None]),
        (pa.uint64(), [0, 1, 2, 300, 2**63, 2**64 - 1, None]),
    ):
        shown = repr(value).replace("inf", "1e400")
        try:
            rows = found(f"x {sign} {shown}", values, kind)
            turned = found(f"{shown} {sign} x", values, kind)
        except ConfigError:
            assert sign in COMPARE
            assert value not in values
            continue
        compare = {**COMPARE, **ORDER}[sign]
        known = [(row, x) for row, x in enumerate(values) if x is not None]
        assert rows == [row for row, x in known if compare(x, value)]
        assert turned == [row for row, x in known if compare(value, x)]


@pytest.mark.parametrize("sign", [*COMPARE, *ORDER])
def test_signed_and_unsigned_columns_are_compared_exactly(sign: str) -> None:
    one, other = [-1, 0, 5, 2**63 - 1, None, -1], [2**64 - 1, 2**63, 5, 2**63 - 1, 1, None]
    compare = {**COMPARE, **ORDER}[sign]
    pairs = [(row, a, b) for row, (a, b) in enumerate(zip(one, other, strict=True))]
    known = [(row, a, b) for row, a, b in pairs if a is not None and b is not None]
    rows = found(f"x {sign} y", one, pa.int64(), pa.array(other, pa.uint64()))
    assert rows == [row for row, a, b in known if compare(a, b)]
    rows = found(f"y {sign} x", one, pa.int64(), pa.array(other, pa.uint64()))
    assert rows == [row for row, a, b in known if compare(b, a)]


def test_float16_is_compared() -> None:
    assert found("x > 0.1", [0.0, 0.1, 0.2, None], pa.float16()) == [2]
    assert found("x = 0.1 or x > y", [0.1, 2.0], pa.float16(), pa.array([3, 1])) == [0, 1]


def test_times_of_two_units_and_zones_are_compared() -> None:
    time = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    later = time + datetime.timedelta(microseconds=1)
    other = pa.array([time, later], pa.timestamp("us", "Europe/Paris"))
    assert found("x < y", [time, time], pa.timestamp("s", "UTC"), other) == [1]


def test_any_column_may_be_null() -> None:
    assert found("x is null", [[1], None], pa.list_(pa.int8())) == [1]


def test_nan_is_unequal_to_every_number() -> None:
    nan = float("nan")
    assert found("x > 0.9 or x <= 0.9 or x = 0.9 or x in (0.9)", [nan], pa.float32()) == []
    assert found("x != 0.9 and not x > 0.9 and x not in (0.9)", [nan], pa.float32()) == [0]
