"""New streams whose keys differ from another only in case, or in blanks around it."""

from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.states import Layout, StateTable
from streamrnn.stream.scoring.summary import Summary

WORDS = st.sampled_from(
    ["Teddy", "teddy", "TEDDY ", " teddy\t", "Paulette", "PAULETTE", "é", "É ", ""]
)
KINDS = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))


@settings(deadline=None)
@given(
    keys=st.lists(st.tuples(WORDS, st.integers(0, 2)), unique=True),
    share=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    columns=st.sampled_from([1, 2]),
)
def test_similar_keys_are_those_that_python_finds(
    keys: list[tuple[str, int]], share: float, kind: pa.DataType, columns: int
) -> None:
    """The oracle is a dict of the keys in lower case, without blanks around them."""
    keys = list(dict.fromkeys(key if columns == 2 else (key[0], 0) for key in keys))
    fields = (pa.field("id", kind), pa.field("n", pa.int64()))[:columns]
    table = StateTable(Layout(fields, None, {}))
    texts, numbers = [key[0] for key in keys], [key[1] for key in keys]
    table.find([pa.array(texts, pa.string()).cast(kind), pa.array(numbers, pa.int64())][:columns])
    first, seen, expected = int(share * len(keys)), dict[tuple[str, int], int](), []
    for slot, (text, number) in enumerate(keys):
        other = seen.setdefault((text.strip().lower(), number), slot)
        if slot >= first and other != slot:
            expected.append((slot, other))

    def named(slot: int) -> str:
        return f"id={texts[slot]!r}" + (f", n={numbers[slot]}" if columns == 2 else "")

    number, some = table.similar_keys(first)
    assert number == len(expected)
    assert some == [f"{named(slot)} like {named(other)}" for slot, other in expected[:3]]


def test_keys_that_are_not_text_look_like_no_other() -> None:
    for keys in (
        pa.array([b"a", b"A"]),
        pa.array([1, 2]),
        pa.array([b"a", b"A"]).cast(pa.string()),
    ):
        table = StateTable(Layout((pa.field("id", keys.type),), None, {}))
        table.find([keys])
        assert table.similar_keys(0)[0] == (keys.type == pa.string())
    broken = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe")
    )
    table = StateTable(Layout((pa.field("id", pa.string()),), None, {}))
    table.find([broken])
    assert table.similar_keys(0) == (0, [])


def run(day: int, *ids: str) -> Summary:
    rows = len(ids)
    columns = {
        "id": ids,
        "t": range(day * 100, day * 100 + rows),
        "a": [0.5] * rows,
        "b": [1] * rows,
    }
    Path("in").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), f"in/{day}.parquet")
    return Pipeline.from_dict(logs.config("in", "m.safetensors", "out")).run()


@pytest.mark.usefixtures("model_dir")
def test_a_run_counts_its_new_similar_keys_and_names_three() -> None:
    first = run(0, "Teddy", "PAULETTE", "Nana")
    assert (first.similar_keys, first.first_similar_keys) == (0, [])
    assert "blanks" not in in_words(first)
    second = run(1, "Teddy ", "Teddy", "Paulette", "NANA", "nana", "Other")
    assert (second.similar_keys, second.new_streams) == (4, 5)
    assert second.first_similar_keys == [
        "id='Teddy ' like id='Teddy'",
        "id='Paulette' like id='PAULETTE'",
        "id='NANA' like id='Nana'",
    ]
    assert "4 new streams with a key like another" in in_words(second)
    assert "id='Teddy ' like id='Teddy'; id='Paulette'" in in_words(second)
    assert run(2, "Teddy ", "nana").similar_keys == 0


def test_state_show_quotes_keys_with_blanks(
    model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As --key takes them, from a shell."""
    run(0, "Teddy", "Teddy ", "Dear Nana", "a\tb")

    def shown(*options: str) -> list[str]:
        return run_command(capsys, "state", "show", "out", *options)[1].splitlines()[1:]

    starts = ["Teddy  ", '"Teddy "', '"Dear Nana"', '"a\\tb"']
    assert all(line.startswith(start) for line, start in zip(shown(), starts, strict=False))
    assert shown("--key", "Teddy ")[0].startswith('"Teddy "')
