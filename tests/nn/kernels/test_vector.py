"""The vector type and the tile type, one operation after the other, at every width."""

import numpy as np
import pytest

from streamrnn.nn.simd import tile
from streamrnn.nn.simd.jit import kernel
from streamrnn.nn.simd.vector import (
    absolute,
    fma,
    load,
    make_copy,
    make_transpose,
    power_of_two,
    splat,
    store,
    where_less,
)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_operations_are_numpys_place_by_place(n: int) -> None:
    @kernel
    def run(a, b, out):
        x, y = load(a, 1, n), load(b, 0, n)
        results = (x + y, x - y, x * y, x / y, -x, absolute(x), x + 2 * y)
        store(out, 0 * n, results[0])
        store(out, 1 * n, results[1])
        store(out, 2 * n, results[2])
        store(out, 3 * n, results[3])
        store(out, 4 * n, results[4])
        store(out, 5 * n, results[5])
        store(out, 6 * n, results[6])
        store(out, 7 * n, fma(x, y, 1.0))
        store(out, 8 * n, where_less(x, y, x, 0.5))
        x *= 2.0
        x -= 1
        store(out, 9 * n, x)
        store(out, 10 * n, splat(7, n))

    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((2, n + 1)).astype(np.float32)
    a[2], b[3] = np.nan, np.inf
    out = np.zeros(12 * n, np.float32)
    run(a, b, out)
    x, y = a[1:], b[:n]
    exact = (x.astype(np.float64) * y + 1).astype(np.float32)  # one rounding; the product is exact
    wanted = [x + y, x - y, x * y, x / y, -x, abs(x), x + 2 * y, exact]
    wanted += [np.where(x < y, x, np.float32(0.5)), 2 * x - 1, np.full(n, 7), np.zeros(n)]
    np.testing.assert_array_equal(out, np.concatenate(wanted).astype(np.float32))


def test_a_fused_product_is_rounded_once() -> None:
    @kernel
    def run(a, out):
        x = load(a, 0, 4)
        store(out, 0, fma(x, x, -1.0))
        store(out, 4, x * x - 1.0)

    out = np.zeros(8, np.float32)
    run(np.full(4, 1 + 2.0**-12, np.float32), out)
    assert (out[:4] == np.float32(2.0**-11 + 2.0**-24)).all()
    assert (out[4:] == np.float32(2.0**-11)).all()


def test_powers_of_two() -> None:
    @kernel
    def run(a):
        for i in range(0, a.size, 4):
            store(a, i, power_of_two(load(a, i, 4)))

    a = np.arange(-128, 128, dtype=np.float32)
    run(a)
    np.testing.assert_array_equal(a[2:], np.exp2(np.arange(-126, 128)).astype(np.float32))
    assert a[1] == 0


@pytest.mark.parametrize("n", [4, 16])
def test_copy_takes_any_count_and_no_more(n: int) -> None:
    copy = make_copy(n)

    @kernel
    def run(a, b, count):
        copy(a, 3, b, 2, count)

    a = np.arange(80, dtype=np.float32)
    for count in (0, 1, n - 1, n, n + 1, 3 * n + 2):
        b = np.full(70, -1, np.float32)
        run(a, b, count)
        np.testing.assert_array_equal(b[2 : 2 + count], a[3 : 3 + count])
        assert (np.delete(b, np.arange(2, 2 + count)) == -1).all()


@pytest.mark.parametrize("n", [4, 8, 16])
def test_rows_and_columns_change_places(n: int) -> None:
    transpose = make_transpose(n)

    @kernel
    def run(a, b):
        transpose(a, 5, n + 3, b, 2)

    a = np.arange(5 + n * (n + 3), dtype=np.float32)
    b = np.full(n * n + 4, -1, np.float32)
    run(a, b)
    wanted = a[5:].reshape(n, n + 3)[:, :n].T
    np.testing.assert_array_equal(b, [-1, -1, *wanted.ravel(), -1, -1])


@pytest.mark.parametrize(
    ("m", "g", "into"), [(1, 4, (0, 1, 2, 3)), (3, 4, (0, 1, 3)), (6, 1, (0,))]
)
def test_a_tile_sums_rows_times_weights(m: int, g: int, into: tuple[int, ...]) -> None:
    """Rows anywhere, weights of a gate into the sum that `into` names. Whole numbers are exact."""
    n, count = 4, 5
    begin, feed = tile.begin(m, g, n), tile.feed(m, g, n, into)

    @kernel
    def run(start, x, at, w, out, spread_out):
        sums = feed(begin(start, at, 0, 2), count, x, at, 0, w, 1)
        tile.put(sums, out, 3)
        tile.scatter(sums, spread_out, at, 0, 1)

    rng = np.random.default_rng(m)
    start, x, w = (rng.integers(-9, 9, 200).astype(np.float32) for _ in range(3))
    at = rng.permutation(6)[:m] * 25
    out, spread_out = np.zeros(3 + m * g * n, np.float32), np.zeros(200, np.float32)
    run(start, x, at, w, out, spread_out)
    wanted = np.stack([start[row + 2 : row + 2 + g * n].reshape(g, n) for row in at])
    weights = w[1 : 1 + count * len(into) * n].reshape(count, len(into), n)
    for r, row in enumerate(at):
        for q, s in enumerate(into):
            wanted[r, s] += x[row : row + count] @ weights[:, q]
    np.testing.assert_array_equal(out[3:].reshape(m, g, n), wanted)
    for r, row in enumerate(at):
        np.testing.assert_array_equal(spread_out[row + 1 : row + 1 + g * n], wanted[r].ravel())
