"""Arrays that grow in place: the rows that were there, then zeros, and no copy of a large one."""

import pickle

import numpy as np
import pytest

from streamrnn.nn.kernels import rows as kernels
from streamrnn.nn.kernels.rows import grown


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, object])
@pytest.mark.parametrize("width", [(), (3,), (2, 5)])
@pytest.mark.parametrize("space", [None, 0, 1 << 23])
def test_rows_stay_and_new_ones_are_zeros(
    dtype: type, width: tuple[int, ...], space: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever address space there is: as much as usual, none, or less than the rows need."""
    if space is not None:
        monkeypatch.setattr(kernels, "_address_space", lambda: space)
    rng = np.random.default_rng(1)
    array, expected = np.zeros((0, *width), dtype), np.zeros((0, *width), dtype)
    for rows in (1, 7, 7, 1000, 30_000, 29_000, 200_000):
        array = grown(array, rows)
        more = max(rows, len(expected)) - len(expected)
        expected = np.concatenate([expected, np.zeros((more, *width), dtype)])
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
        array[len(expected) - more :] = expected[len(expected) - more :] = rng.integers(0, 2)


def test_a_large_array_grows_where_it_is() -> None:
    """So a view of it stays one, and none of its rows is copied."""
    small = grown(np.zeros((0, 4), np.float32), 10)
    assert not np.shares_memory(small, grown(small, 1_000_000))
    array = grown(small, 10_000)
    for rows in (10_001, 1_000_000):
        larger = grown(array, rows)
        larger[5] = rows
        assert array[5].tolist() == [rows] * 4
    assert len(pickle.dumps(array)) < 2 * array.nbytes


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_no_space_is_reserved_where_it_counts_as_memory(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `ulimit -v`, in which a reserved range would leave nothing for others."""
    kind, limits = getattr(kernels.resource, limit), kernels.resource.getrlimit
    limited = {kind: (1 << 33, 1 << 33)}
    monkeypatch.setattr(kernels.resource, "getrlimit", lambda k: limited.get(k, limits(k)))
    array = grown(np.zeros(0), 100_000)
    assert len(array.base) == 100_000
