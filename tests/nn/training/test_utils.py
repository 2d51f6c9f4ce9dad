"""streamrnn.utils: functions of keras.utils, in plain Python; beside Keras in the oracle test."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn import Input, Sequential, initializers, layers, optimizers, utils
from streamrnn.errors import ArgumentError

SHORT = st.lists(st.lists(st.integers(-9, 9), max_size=6), max_size=5)


@settings(deadline=None)
@given(
    sequences=SHORT,
    maxlen=st.none() | st.integers(0, 7),
    padding=st.sampled_from(["pre", "post"]),
    truncating=st.sampled_from(["pre", "post"]),
)
def test_sequences_are_padded_as_lists_would_be(
    sequences: list[list[int]], maxlen: int | None, padding: str, truncating: str
) -> None:
    length = max(map(len, sequences), default=0) if maxlen is None else maxlen
    expected = []
    for sequence in sequences:
        cut = len(sequence) - length
        kept = (
            sequence if cut <= 0 else sequence[cut:] if truncating == "pre" else sequence[:length]
        )
        fill = [7] * (length - len(kept))
        expected.append(fill + kept if padding == "pre" else kept + fill)
    padded = utils.pad_sequences(
        sequences, maxlen=maxlen, padding=padding, truncating=truncating, value=7
    )
    assert padded.dtype == np.int32
    assert padded.shape == (len(sequences), length)
    assert padded.tolist() == expected


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 5), min_size=1, max_size=9), more=st.integers(0, 2))
def test_classes_are_rows_with_one_1(ids: list[int], more: int) -> None:
    classes = max(ids) + 1
    rows = [[float(number == n) for n in range(classes + more)] for number in ids]
    assert utils.to_categorical(ids, classes + more).tolist() == rows
    column = np.array(ids)[:, None]
    assert utils.to_categorical(column).tolist() == [row[:classes] for row in rows]


@settings(deadline=None)
@given(
    rows=st.integers(1, 30),
    length=st.integers(1, 5),
    stride=st.integers(1, 4),
    rate=st.integers(1, 3),
    size=st.integers(1, 7),
    labelled=st.booleans(),
    data=st.data(),
)
def test_windows_are_those_of_slices(
    rows: int, length: int, stride: int, rate: int, size: int, labelled: bool, data: Any
) -> None:
    """In order, each once, also again; labels are of the row where a window begins."""
    begin = data.draw(st.integers(0, rows - 1))
    end = data.draw(st.integers(begin + 1, rows))
    series, labels = [[n, -n] for n in range(rows)], [100 + n for n in range(rows)]
    batches = utils.timeseries_dataset_from_array(
        series, labels if labelled else None, length, stride, rate, size,
        start_index=begin, end_index=end,
    )  # fmt: skip
    part, named = series[begin:end], labels[begin:end]
    starts = [n for n in range(0, len(part), stride) if n + (length - 1) * rate < len(part)]
    windows = [part[n : n + length * rate : rate][:length] for n in starts]
    for _ in range(2):
        found = list(batches)
        assert len(found) == len(batches) == -(-len(starts) // size)
        xs = [batch[0] if labelled else batch for batch in found]
        assert list(itertools.chain(*(x.tolist() for x in xs))) == windows
        if labelled:
            ys = list(itertools.chain(*(batch[1].tolist() for batch in found)))
            assert ys == [named[n] for n in starts]


def test_windows_are_shuffled_by_a_seed_and_fit_reads_them() -> None:
    series = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    windows = utils.timeseries_dataset_from_array(
        series, series[4:, :1], 5, batch_size=8, shuffle=True, seed=3
    )
    again = utils.timeseries_dataset_from_array(
        series, series[4:, :1], 5, batch_size=8, shuffle=True, seed=3
    )
    order = [y[:, 0].tolist() for _, y in windows]
    assert order == [y[:, 0].tolist() for _, y in again]
    assert sorted(itertools.chain(*order)) == sorted(series[4:, 0].tolist())
    assert list(itertools.chain(*order)) != series[4:, 0].tolist()
    model = Sequential([Input((5, 2)), layers.GRU(4), layers.Dense(1)])
    model.compile("adam", "mse")
    losses = model.fit(windows, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    (window, label), *_ = utils.timeseries_dataset_from_array(
        series, series[4:], 5, batch_size=None
    )
    assert (window.shape, label.shape) == ((5, 2), (2,))


def test_a_seed_decides_weights_and_masks_and_those_of_python_and_numpy() -> None:
    drawn = []
    for seed in (5, 5, 6):
        utils.set_random_seed(seed)
        model = Sequential([Input((None, 3)), layers.LSTM(4, dropout=0.5), layers.Dropout(0.5)])
        x = np.ones((6, 3, 3), np.float32)
        noise = layers.GaussianNoise(1.0)(x, training=True)
        drawn.append(
            [
                *model.get_weights(),
                model(x, training=True),
                noise,
                random.random(),
                np.random.rand(),
            ]
        )
    for same, other in ((0, 1), (0, 2)):
        equal = [np.array_equal(a, b) for a, b in zip(drawn[same], drawn[other], strict=True)]
        assert all(equal) if other == 1 else not any(equal[:2] + equal[3:])
    fixed = initializers.GlorotUniform(seed=1)((2, 2))
    utils.set_random_seed(9)
    np.testing.assert_array_equal(initializers.GlorotUniform(seed=1)((2, 2)), fixed)


def test_a_rate_is_a_number_that_can_be_assigned() -> None:
    optimizer = optimizers.Adam(0.25)
    optimizer.learning_rate.assign(0.5)
    assert optimizer.learning_rate == 0.5
    assert optimizer.learning_rate * 2 == 1.0
    with pytest.raises(ArgumentError, match="must be 0 or more"):
        optimizer.learning_rate.assign(-1.0)
    decayed = optimizers.Adam(optimizers.schedules.ExponentialDecay(0.5, 10, 0.5))
    with pytest.raises(ArgumentError, match="a schedule, and cannot be set"):
        decayed.learning_rate.assign(0.1)


def test_weights_are_saved_and_a_batch_predicted(tmp_path: Path) -> None:
    model = Sequential([Input((None, 3)), layers.GRU(4, stateful=True), layers.Dense(1)])
    x = np.random.default_rng(2).normal(size=(2, 5, 3)).astype(np.float32)
    first, second = model.predict_on_batch(x), model.predict_on_batch(x)
    assert (first != second).any()
    model.reset_state()
    np.testing.assert_array_equal(model.predict(x), first)
    model.save_weights(tmp_path / "w.safetensors")
    other = Sequential([Input((None, 3)), layers.GRU(4, stateful=True), layers.Dense(1)])
    other.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(other.predict_on_batch(x), first)
    with pytest.raises(ArgumentError, match="exists; set overwrite=True"):
        model.save_weights(tmp_path / "w.safetensors", overwrite=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: utils.set_random_seed("a"), "an integer from 0 to 4294967295, received 'a'"),
        (lambda: utils.set_random_seed(-1), "an integer from 0 to 4294967295, received -1"),
        (lambda: utils.set_random_seed(2**32), "to 4294967295, received 4294967296"),
        (lambda: utils.to_categorical([0, 3], 3), "expected classes 0 to 2, received 3"),
        (lambda: utils.to_categorical([-1]), "received -1"),
        (lambda: utils.pad_sequences([[1]], padding="left"), 'padding: expected "pre" or "post"'),
        (lambda: utils.pad_sequences([1]), "expected a list of sequences"),
        (lambda: utils.pad_sequences([[[1]], [[1, 2]]]), "steps of one shape"),
        (lambda: utils.timeseries_dataset_from_array([1], None, 0), "sequence_length: expected a"),
        (
            lambda: utils.timeseries_dataset_from_array([1], None, 1, end_index=2),
            r"expected 0 <= start < end <= 1, .* received 0 and 2",
        ),
    ],
)
def test_what_is_wrong_is_said(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
