"""The recurrent kernels: against the oracle, and everything that must not change a bit."""

import os
import pickle

import kernelcases
import naive
import numpy as np
import pytest
from kernelcases import FLOATS, KINDS, Case
from selection import first_quick, slow

from streamrnn.nn import simd
from streamrnn.nn.kernels import one_thread, recurrent, set_threads, team, threads

QUICK = "lstm", "gru", "peephole_lstm", "layer_norm", "lstm_int16"
ORDERED = [*QUICK, *(kind for kind in KINDS if kind not in QUICK)]


@pytest.fixture(params=first_quick(ORDERED, len(QUICK)))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def assert_close(case: Case, states: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """h within 5e-6, or 5e-4 for integers; c within 1e-5 relative, or one rounding of its terms.

    A c that was normalised is the quotient of such a difference, and as near as h.
    """
    h, *cs = zip(states, expected, strict=True)
    np.testing.assert_allclose(*h, rtol=0, atol=case.kind.atol)
    for c, wanted in cs:
        near = case.kind is KINDS["layer_norm"] or case.kind.precision != "float32"
        atol = case.kind.atol if near else 2**-23
        np.testing.assert_allclose(c, wanted, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("lanes", [1, 5, 7])
def test_agrees_with_the_oracle(case: Case, lanes: int) -> None:
    """As near as `assert_close` says, from any state. Slow: most kinds."""
    x, start = case.window(lanes, 6), case.start(lanes)
    y, states = case.run(x, start)
    expected, after = case.expected(x, start)
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.kind.atol)
    np.testing.assert_array_equal(states[0], y[:, -1])
    assert_close(case, states, after)


@pytest.mark.parametrize("units", [3, 33])
@slow
def test_any_number_of_units(units: int) -> None:
    """Also where they do not fill a vector, or fill several. Slow: each kind of kernel with other
    tiles; contracts of layers have three and four units."""
    for kind in KINDS:
        case = Case(kind, features=3, units=units)
        x, start = case.window(3, 2), case.start(3)
        y, _ = case.run(x, start)
        np.testing.assert_allclose(y, case.expected(x, start)[0], rtol=0, atol=case.kind.atol)


@slow
def test_no_bias_is_a_bias_of_zeros() -> None:
    """Slow: every kind, in integers too."""
    for kind in KINDS:
        case = Case(kind, bias=False)
        x, start = case.window(2, 3), case.start(2)
        y, wanted = case.run(x, start)[0], case.expected(x, start)[0]
        np.testing.assert_allclose(y, wanted, rtol=0, atol=case.kind.atol)


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_cutting_a_window_anywhere_changes_nothing(case: Case, lanes: int) -> None:
    """Neither outputs nor states, also under a mask with gaps. Slow: most kinds."""
    x, start = case.window(lanes, 27), case.start(lanes)
    mask = np.random.default_rng(0).random((lanes, 27)) < 0.7
    for gaps in (None, mask):
        whole, end = case.run(x, start, mask=gaps)
        for cut in range(28):
            first, second = (None, None) if gaps is None else (gaps[:, :cut], gaps[:, cut:])
            head, middle = case.run(x[:, :cut], start, mask=first)
            tail, final = case.run(x[:, cut:], middle, mask=second)
            np.testing.assert_array_equal(np.concatenate([head, tail], axis=1), whole)
            np.testing.assert_array_equal(final, end)


def test_a_lane_does_not_see_how_many_travel_with_it(case: Case) -> None:
    """Lane b of a batch of n equals a batch of 1, for every way a batch falls into tiles. Slow:
    most integers."""
    x, start = case.window(14, 5), case.start(14)
    alone = [case.run(x[b : b + 1], [s[b : b + 1] for s in start]) for b in range(14)]
    for lanes in range(2, 15):
        y, states = case.run(x[:lanes], [state[:lanes] for state in start])
        for b in range(lanes):
            np.testing.assert_array_equal(y[b], alone[b][0][0])
            for state, wanted in zip(states, alone[b][1], strict=True):
                np.testing.assert_array_equal(state[b], wanted[0])


@pytest.mark.parametrize("zero_masked", [False, True])
def test_masks_as_the_oracle(case: Case, zero_masked: bool) -> None:
    """A masked step keeps the state and repeats the output, or writes zeros. Slow: most
    integers."""
    x, start = case.window(6, 7), case.start(6)
    mask = np.random.default_rng(1).random((6, 7)) < 0.5
    mask[0], mask[1] = False, True
    x[~mask] = np.nan  # what is masked may be anything
    y, states = case.run(x, start, mask=mask, zero_masked=zero_masked)
    clean = np.where(mask[..., None], x, 0)
    expected, after = case.expected(clean, start, mask_BT=mask, zero_output_for_mask=zero_masked)
    np.testing.assert_allclose(y, expected, rtol=0, atol=case.kind.atol)
    assert_close(case, states, after)
    for state, before in zip(states, start, strict=True):
        np.testing.assert_array_equal(state[0], before[0])


@pytest.mark.parametrize("lanes", [3, 9])
def test_steps_past_a_length_are_absent(case: Case, lanes: int) -> None:
    """State as if the window ended there; what lies past is not written; 0 keeps the state. Slow:
    most integers."""
    x, start = case.window(lanes, 8), case.start(lanes)
    lengths = np.arange(lanes)[::-1] % 9
    y, states = case.run(x, start, lengths=lengths)
    for b, length in enumerate(lengths):
        one = [state[b : b + 1] for state in start]
        wanted, after = case.run(x[b : b + 1, :length], one)
        np.testing.assert_array_equal(y[b, :length], wanted[0])
        np.testing.assert_array_equal(y[b, length:], -7.0)
        for state, alone in zip(states, after, strict=True):
            np.testing.assert_array_equal(state[b], alone[0])


def test_nan_stays_in_its_lane(case: Case) -> None:
    """Slow: most kinds."""
    x, start = case.window(7, 4), case.start(7)
    clean, ends = case.run(x, start)
    x[3, 1, 2] = np.nan
    y, states = case.run(x, start)
    others = [0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(y[others], clean[others])
    assert np.isnan(y[3, 1:]).all()
    np.testing.assert_array_equal(y[3, 0], clean[3, 0])
    np.testing.assert_array_equal(np.array(states)[:, others], np.array(ends)[:, others])


def test_nan_in_a_state_is_kept_and_passed_on(case: Case) -> None:
    """A lane that does not move keeps even a broken state, bit for bit. Slow: most kinds."""
    x, start = case.window(2, 2), case.start(2)
    start[0][0] = np.nan
    y, states = case.run(x, start, lengths=[0, 2])
    assert states[0][0].tobytes() == start[0][0].tobytes()
    assert np.isfinite(y[1]).all()
    assert np.isnan(case.run(x, start)[0][0]).all()


def test_outputs_need_not_be_wanted(case: Case) -> None:
    """Slow: most kinds."""
    x, start = case.window(3, 4), case.start(3)
    _, wanted = case.run(x, start)
    states = [state.copy() for state in start]
    recurrent.run(case.packed, case.kind.activations({}), x, None, None, states, None)
    np.testing.assert_array_equal(states, wanted)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_to_do(case: Case, shape: tuple[int, int]) -> None:
    """Slow: most kinds."""
    start = case.start(shape[0])
    y, states = case.run(case.window(*shape), start)
    assert y.shape == (*shape, case.units)
    np.testing.assert_array_equal(states, start)


def test_arrays_that_cannot_be_written_can_be_read(case: Case) -> None:
    """Input from Arrow is such. Slow: most kinds."""
    x, start = case.window(2, 3), case.start(2)
    wanted, _ = case.run(x, start)
    x.flags.writeable = False
    np.testing.assert_array_equal(case.run(x, start)[0], wanted)


def test_threads_change_no_bit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are split between threads, also ragged ones and more threads than lanes. Slow: most
    integers."""
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(team, "SLOW", 60)  # on a busy machine too
    monkeypatch.setattr(team, "_team", team._Team())
    beside, shared = team.beside, []
    monkeypatch.setattr(team, "beside", lambda jobs: shared.append(beside(jobs)) or shared[-1])
    x, start = case.window(9, 6), case.start(9)
    lengths = np.array([6, 6, 5, 4, 3, 1, 0, 0, 0])
    with one_thread():
        wanted = [case.run(x, start), case.run(x, start, lengths=lengths)]
    try:
        for count in (2, 3, 20):
            set_threads(count)
            got = [case.run(x, start), case.run(x, start, lengths=lengths)]
            for (y, states), (y_one, states_one) in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(y, y_one)
                np.testing.assert_array_equal(states, states_one)
    finally:
        set_threads(0)
    assert shared == [True] * 6


@pytest.mark.parametrize("kind", first_quick(ORDERED, len(QUICK)))
@pytest.mark.parametrize(("lanes", "count"), first_quick([(1, 2), (1, 3), (2, 2), (3, 3)]))
def test_threads_on_a_few_lanes_change_no_bit(
    kind: str, lanes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has some of their units, and they meet: two to the end, unless the cores are busy. Slow:
    several lanes, more threads, most integers."""
    alone = kernelcases.share_lanes(monkeypatch)
    case = Case(kind, units=200)
    x, start = case.window(lanes, 40), case.start(lanes)
    mask = np.random.default_rng(4).random((lanes, 40)) < 0.7
    lengths = [29, 40, 0][:lanes]
    windows = [
        {},
        {"mask": mask},
        {"lengths": lengths},
        {"mask": mask, "lengths": lengths, "zero_masked": True},
    ]
    if case.kind.precision == "float32":
        windows.append({"activation": "softmax"})  # in numpy, by one thread
    with one_thread():
        wanted = [case.run(x, start, **window) for window in windows]
    set_threads(count)
    try:
        for window, (y, states) in zip(windows, wanted, strict=True):
            tries = 1 if "activation" in window else 50
            for _ in range(tries):
                alone.clear()
                got, after = case.run(x, start, **window)
                np.testing.assert_array_equal(got, y)
                np.testing.assert_array_equal(after, states)
                if alone == [False] or (os.cpu_count() or 1) < count:
                    break
            assert len(alone) == (tries > 1)
    finally:
        set_threads(0)


def test_lanes_that_do_not_go_at_once_change_no_bit(case: Case) -> None:
    """A wide window is taken some lanes at a time, each time with clean places for its states.
    Slow: most kinds."""
    lanes = 2 * simd.recurrent.LANES + 5
    x, start = case.window(lanes, 3), case.start(lanes)
    lengths = np.random.default_rng(5).integers(0, 4, lanes)
    y, states = case.run(x, start, lengths=lengths)
    for first in range(0, lanes, 40):
        some = slice(first, first + 40)
        wanted, after = case.run(x[some], [state[some] for state in start], lengths=lengths[some])
        np.testing.assert_array_equal(y[some], wanted)
        for state, one in zip(states, after, strict=True):
            np.testing.assert_array_equal(state[some], one)


@pytest.mark.parametrize("kind", FLOATS)
def test_softmax_inside_a_cell(kind: str) -> None:
    """The one activation that needs all units of a gate: by another way, to the same rules."""
    case = Case(kind)
    options = {"activation": "softmax"}
    if case.kind.gates > 1:
        options["recurrent_activation"] = "softmax"
    x, start = case.window(3, 5), case.start(3)
    mask = np.array([[1, 1, 0, 1, 1], [0, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    y, states = case.run(x, start, mask=mask, **options)
    cell = case.kind.cell(*case.weights, **case.kind.options, **options)
    expected, _, after = naive.layer(cell, x, start, mask)
    np.testing.assert_allclose(y, np.array(expected), rtol=0, atol=5e-6)
    np.testing.assert_allclose(states, np.array(after), rtol=0, atol=5e-6)
    alone, _ = case.run(x[1:2], [s[1:2] for s in start], mask=mask[1:2], **options)
    np.testing.assert_array_equal(y[1], alone[0])
    short, ended = case.run(x, start, lengths=[2, 0, 5], zero_masked=True, **options)
    np.testing.assert_array_equal(short[1], -7.0)
    np.testing.assert_array_equal(np.array(ended)[:, 1], np.array(start)[:, 1])


def test_packed_weights_can_be_pickled(case: Case) -> None:
    """As a model is that goes to another process; compiled code does not travel. Slow: most
    integers."""
    x, start = case.window(2, 3), case.start(2)
    wanted, _ = case.run(x, start)
    case.packed = pickle.loads(pickle.dumps(case.packed))
    np.testing.assert_array_equal(case.run(x, start)[0], wanted)


def test_arrays_with_gaps_are_refused(case: Case) -> None:
    """A kernel sees an address and a length: it would write into what lies between. Slow: most
    integers."""
    states = [np.zeros((2, 2 * case.units), np.float32)[:, ::2] for _ in range(case.kind.states)]
    with pytest.raises(ValueError, match="C-contiguous"):
        recurrent.run(
            case.packed, case.kind.activations({}), case.window(2, 1), None, None, states, None
        )


def test_masks_and_lengths_that_do_not_fit_are_refused(case: Case) -> None:
    """The kernel would read beside them. Slow: most kinds."""
    x, start = case.window(2, 5), case.start(2)
    with pytest.raises(ValueError, match="expected 2 lengths"):
        case.run(x, start, lengths=[5])
    with pytest.raises(ValueError, match=r"expected a mask of shape \(2, 5\), received \(2, 4\)"):
        case.run(x, start, mask=np.ones((2, 4), bool))


@slow
def test_without_features_the_state_still_moves() -> None:
    """As with features that are all zero. Slow: every kind, in integers too."""
    for kind in KINDS:
        case = Case(kind, features=1)
        start = case.start(2)
        wanted, after = case.run(np.zeros((2, 3, 1), np.float32), start)
        kernel, *rest = case.given
        case.packed = case.pack(kernel[:0], *rest)
        y, states = case.run(np.zeros((2, 3, 0), np.float32), start)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(states, after)
