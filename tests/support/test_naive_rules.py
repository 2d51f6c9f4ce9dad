"""The oracle by hand: rules that Keras has no values for, each small enough to check on paper."""

import math

import naive
import pytest

ONE = [[1.0]]


def adder() -> naive.Cell:
    """h' = x + h."""
    return naive.simple_rnn(ONE, ONE, activation="linear")


def test_a_masked_step_repeats_the_last_output() -> None:
    outputs, held, states = naive.sequence(adder(), [[1], [2], [3], [4]], mask_T=[1, 0, 1, 0])
    assert outputs == [[1], [1], [4], [4]]
    assert (held, states) == ([4], [[4]])


def test_before_a_first_valid_step_it_is_the_state_that_the_row_started_from() -> None:
    outputs, held, states = naive.sequence(adder(), [[1], [2]], [[5.0]], mask_T=[0, 0])
    assert outputs == [[5], [5]]
    assert (held, states) == ([5], [[5]])


def test_before_a_first_valid_step_a_custom_cell_gives_zeros() -> None:
    def step(x: naive.Vector, states: naive.States) -> tuple[naive.Vector, naive.States]:
        return [10 * states[0][0] + x[0]], [[states[0][0] + 1]]

    cell = naive.custom(step, sizes=[1], units=1)
    outputs, held, states = naive.sequence(cell, [[7], [8], [9]], [[5.0]], mask_T=[0, 1, 0])
    assert outputs == [[0], [58], [58]]
    assert (held, states) == ([58], [[6]])
    outputs, _, _ = naive.sequence(cell, [[0]], states, mask_T=[0], held=held)
    assert outputs == [[58]]


def test_zero_output_for_mask_touches_what_is_seen_not_what_is_held() -> None:
    x, mask = [[1], [2], [3]], [1, 0, 0]
    outputs, held, _ = naive.sequence(adder(), x, mask_T=mask, zero_output_for_mask=True)
    assert outputs == [[1], [0], [0]]
    assert held == [1]


def test_backwards_turns_the_mask_round_too() -> None:
    x, mask = [[1], [2], [3], [4]], [1, 0, 1, 0]
    outputs, _, _ = naive.sequence(adder(), x, mask_T=mask, go_backwards=True)
    assert outputs == [[0], [3], [3], [4]]


def test_a_length_masks_what_is_past_it() -> None:
    x = [[[1], [2], [4]], [[1], [2], [4]]]
    outputs, last, states = naive.layer(adder(), x, lengths_B=[2, 0])
    assert outputs == [[[1], [3], [3]], [[0], [0], [0]]]
    assert last == [[3], [0]]
    assert states == [[[3], [0]]]


@pytest.mark.parametrize("cut", range(8))
def test_a_cut_changes_nothing(cut: int) -> None:
    """States and the held output are all that a row carries, of stacked cells too."""
    kernel, recurrent = [[0.3, -0.2, 0.8, 0.5]], [[0.1, 0.4, -0.6, 0.2]]
    lower = naive.lstm(kernel, recurrent)
    upper = naive.gru([row[:3] for row in kernel], [row[1:] for row in recurrent])
    cell = naive.stacked(lower, upper)
    x, mask = [[math.sin(t)] for t in range(7)], [0, 1, 1, 0, 0, 1, 0]
    whole, held, states = naive.sequence(cell, x, mask_T=mask)
    first, held_1, states_1 = naive.sequence(cell, x[:cut], mask_T=mask[:cut])
    rest, held_2, states_2 = naive.sequence(cell, x[cut:], states_1, mask[cut:], held=held_1)
    assert first + rest == whole
    assert (held_2, states_2) == (held, states)


def test_conv1d_sees_its_past() -> None:
    kernel = [[[100.0]], [[10.0]], [[1.0]]]
    x = [[[1], [2], [3], [4]]]
    assert naive.conv1d_causal(x, kernel) == [[[1], [12], [123], [234]]]
    assert naive.conv1d_causal([x[0][2:]], kernel, past_BCF=[x[0][:2]]) == [[[123], [234]]]
    assert naive.conv1d_causal(x, kernel, dilation=2) == [[[1], [2], [13], [24]]]


def test_peephole_gates_see_c() -> None:
    """All weights 0 but the peepholes: i and f see the old c, o the new one."""
    nothing = naive.zeros(4)
    cell = naive.peephole_lstm([nothing], [nothing], nothing, [[1.0], [2.0], [3.0]])
    (h,), ((_,), (c,)) = cell.step([0.0], [[0.0], [0.5]])
    new = 0.5 / (1 + math.exp(-2 * 0.5))  # f * c, and i * tanh(0) = 0
    assert c == pytest.approx(new, rel=1e-15)
    assert h == pytest.approx(math.tanh(new) / (1 + math.exp(-3 * new)), rel=1e-15)


def test_the_minimal_gate_does_both_jobs() -> None:
    """f = 3/4: a quarter of h stays, three quarters are tanh of x and f * h."""
    cell = naive.minimal_gated_unit([[0.0, 1.0]], [[0.0, 1.0]], [math.log(3), 0.0])
    (h,), _ = cell.step([0.2], [[0.4]])
    assert h == pytest.approx(0.25 * 0.4 + 0.75 * math.tanh(0.2 + 0.75 * 0.4), rel=1e-15)


@pytest.mark.parametrize(
    ("name", "params", "x", "y"),
    [
        ("hard_sigmoid", {}, [-4.0, -1.5, 1.5, 4.0], [0.0, 0.25, 0.75, 1.0]),
        ("hard_sigmoid_02", {}, [-3.0, -1.5, 1.5, 3.0], [0.0, 0.2, 0.8, 1.0]),
        ("affine", {"alpha": 2.0, "beta": 1.0}, [3.0], [7.0]),
        ("scaled_tanh", {"alpha": 2.0, "beta": 3.0}, [0.1], [2 * math.tanh(0.3)]),
        ("thresholded_relu", {"alpha": 0.5}, [0.4, 0.5, 0.6], [0.0, 0.5, 0.6]),
        ("softmax", {}, [1000.0, 1000.0 + math.log(3)], [0.25, 0.75]),
        ("sigmoid", {}, [-1000.0, 0.0, 1000.0], [0.0, 0.5, 1.0]),
        ("softplus", {}, [-1000.0, 0.0, 1000.0], [0.0, math.log(2), 1000.0]),
    ],
)
def test_activations_by_hand(name: str, params: dict, x: list[float], y: list[float]) -> None:
    assert naive.activate(name, x, **params) == pytest.approx(y, rel=1e-12)


@pytest.mark.parametrize("name", naive.ELEMENTWISE)
def test_nan_stays_nan(name: str) -> None:
    assert math.isnan(naive.activate(name, [math.nan])[0])
