"""Types of kernels and of their arguments. Needs no compiler."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from streamrnn.base.arrays import Bools, Floats, Ints, Words

Kernel: TypeAlias = Callable[..., None]
"""A function compiled by Numba that writes its results into its arguments."""


class Absent(NamedTuple):
    """The steps of a window that are absent.

    They are the steps past a lane's length (B,), and the steps at which the mask (B, T) is false.
    An empty array makes no step absent.
    """

    lengths_B: Ints
    mask_BT: Bools


class Weights(NamedTuple):
    """Packed weights (`flat`), in the order in which sweeps read them, and values by unit (`unit`).

    `unit` has the initial sums, then the units' own weights, which apply only to the values of the
    unit itself (peepholes, gains). If `flat` has integers, `unit` has, in place of own weights, the
    largest integers of the inputs and of the state, and a factor per feature.
    """

    flat: Floats
    unit: Floats


X_TOP, H_TOP, FACTORS = range(3)
"""Places in `unit`, counted from the end of the initial sums, if `flat` has integers."""


class Share(NamedTuple):
    """The part of the units that a thread computes for its lanes: share `number` of `shares`.

    With `shares` > 1 the threads of all shares use one `scratch`, and count their arrivals in
    `barrier`.
    """

    number: int
    shares: int
    scratch: Floats
    barrier: Ints


class Factors(NamedTuple):
    """Dropout of a window: the factors of each lane's inputs and of its h; empty: no dropout."""

    x_BF: Floats
    h_BU: Floats


class TapeLayout(NamedTuple):
    """The parts of a tape (`simd.bptt`): sizes, and the offsets of weights, tiles, zeros and rows.

    own: the offset of the units' own weights (peepholes).
    """

    lanes: int
    units: int
    padded: int
    own: int
    z: int
    zeros: int
    carry: int
    states: int
    kept: int


class NormTape(NamedTuple):
    """What the backward pass of an LSTM with layer normalization reads and writes, by row.

    `gates_RG`: the gates i, f, c, o (R, 4U) after their activations; `slopes_RG`: the derivatives
    of these activations. `y_RU`, `slope_RU`: the activation of c, and its derivative. `before_RU`:
    c before the step; `raw_RU`: the new c, not yet normalized. `h_RG`: the products of h, not yet
    normalized. `gamma_G`, `gamma_U`: gamma of the norms of `h_RG` and `raw_RU`. Written: `dz_RG`,
    the gradients of the gates' sums, and `dc_RU`, the gradients of the normalized c.
    """

    gates_RG: Floats
    slopes_RG: Floats
    y_RU: Floats
    slope_RU: Floats
    before_RU: Floats
    raw_RU: Floats
    h_RG: Floats
    gamma_G: Floats
    gamma_U: Floats
    dz_RG: Floats
    dc_RU: Floats


class Strings(NamedTuple):
    """N byte strings.

    String n has `size[n]` bytes; `words[start[n] + k]` is the word (uint64, little-endian) that
    begins at its byte k. If all strings together are longer than one word, a word that would reach
    beyond their last byte may be missing.
    """

    words: Words
    start: Ints
    size: Ints


KNOWN, PLACED, DONE, MOVED, FILLED = range(5)
"""Places of the counts of a table of strings: strings stored, strings present in its cells, strings
looked up by this call, older cells whose content was moved, and cells in use."""


class StringTable(NamedTuple):
    """Distinct byte strings (see `kernels.rows.StringIndex`)."""

    cells: Words
    older: Words
    hashes: Words
    size: Ints
    begin: Ints
    words: Words
    counts: Ints


class PlainColumns(NamedTuple):
    """Where a record batch has its columns, by number, and how wide their values are, in bytes.

    key_width: -4 or -8 if the key has offsets of 4 or 8 bytes. time: -1 if there is no time column.
    Values of `features` (F,) have 4 or 8 bytes (`widths`); in plain rows they are from `low` to
    `high`.
    """

    key: int
    key_width: int
    time: int
    time_width: int
    features: Ints
    widths: Ints
    low: Floats
    high: Floats


class LastTimes(NamedTuple):
    """The time of each stream's last row, in ticks, and whether the stream has had a row."""

    time: Ints
    seen: Bools


class PlainRows(NamedTuple):
    """The times (N,) of rows, in ticks, their streams (N,), and their features (N, F)."""

    time: Ints
    slots: Ints
    features: Floats
