"""Packed rows: inputs and states as integers, in a thread's own part of the scratch array.

This part begins at `sizes.packed`: first the inputs of one row times the factors of the features,
as floats; then the integers of the inputs of each row, then the integers of the state of each row,
each after their scale (`simd.integer`).
"""

from streamrnn.nn.simd.arguments import FACTORS, H_TOP, X_TOP
from streamrnn.nn.simd.integer import make_pack, make_scaled_copy
from streamrnn.nn.simd.jit import Inlined, inline_always
from streamrnn.nn.simd.sweep import PACKED, X


def make_packed_floats(word: int) -> Inlined:
    """Make `floats(features, units, inputs, states)`, which returns how many floats this part has.

    It has room for `inputs` rows of inputs and for `states` rows of states.
    """

    @inline_always
    def floats(features, units, inputs, states):
        if word == 1:
            return 0
        x_row, h_row = (features + word - 1) // word + 1, (units + word - 1) // word + 1
        return features + inputs * x_row + states * h_row

    return floats


def make_pack_inputs(n: int, word: int) -> Inlined:
    """Make `pack_inputs(x, i, s, sizes, offsets, row)`: pack x[i : i + features] as row `row`."""
    copy, pack = make_scaled_copy(n), make_pack(n, word)

    @inline_always
    def pack_inputs(x, i, s, sizes, offsets, row):
        features, place = sizes.features, sizes.packed
        j = place + features + row * ((features + word - 1) // word + 1)
        copy(x, i, s, sizes.unit + FACTORS, s, place, features)
        pack(s, place, features, s[sizes.unit + X_TOP], j)
        offsets[X * sizes.cap + row] = j + 1

    return pack_inputs


def make_pack_states(n: int, word: int, operand: int) -> Inlined:
    """Make `pack_states(rows, s, sizes, offsets)`: pack the operand of the first `rows` rows."""
    pack = make_pack(n, word)

    @inline_always
    def pack_states(rows, s, sizes, offsets):
        features, units, cap = sizes.features, sizes.units, sizes.cap
        j = sizes.packed + features + cap * ((features + word - 1) // word + 1)
        for row in range(rows):
            pack(s, offsets[operand * cap + row], units, s[sizes.unit + H_TOP], j)
            offsets[PACKED * cap + row] = j + 1
            j += (units + word - 1) // word + 1

    return pack_states
