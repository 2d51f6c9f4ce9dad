"""Rows of contracts for layers that look along the time axis, or change it."""

from typing import Any

import naive
import naive_time_axis as timed
import naive_values as values
import numpy as np
from contracts.rows_layers import LayerRow, before, drawn, inputs_of, last

from streamrnn import Input, Model, Sequential, layers

AHEAD = 'Its padding is not "causal".'
JOINS = "It makes one step of several."
WHOLE = "It needs the whole time axis."
UNTRAINED = "DepthwiseConv1D and Dense compute the same, and are trained."
OVER = "Its mean is over the steps of a sequence."
RESIZES = "It changes the number of steps."
NO_GRADIENT = "It has no gradient: the layers behind it can be trained."

CONVOLUTIONS = {
    "Conv1D/valid": LayerRow(
        lambda: layers.Conv1D(2, 3, activation="tanh"),
        lambda w, x: timed.conv1d(x, *w, activation="tanh"),
        cut=AHEAD,
    ),
    "Conv1D/same": LayerRow(
        lambda: layers.Conv1D(5, 4, padding="same", activation="gelu", use_bias=False),
        lambda w, x: timed.conv1d(x, *w, padding="same", activation="gelu"),
        cut=AHEAD,
    ),
    "Conv1D/strides": LayerRow(
        lambda: layers.Conv1D(2, 3, strides=4, padding="same"),
        lambda w, x: timed.conv1d(x, *w, padding="same", strides=4),
        cut=AHEAD,
    ),
    "Conv1D/causal_strides": LayerRow(
        lambda: layers.Conv1D(2, 3, strides=2, padding="causal"),
        lambda w, x: timed.conv1d(x, *w, padding="causal", strides=2),
        cut="It leaves out steps.",
    ),
    "Conv1D/groups": LayerRow(
        lambda: layers.Conv1D(
            6, 2, padding="causal", dilation_rate=2, groups=2, activation="softmax"
        ),
        lambda w, x: timed.conv1d(
            x, *w, padding="causal", dilation=2, groups=2, activation="softmax"
        ),
    ),
    "Conv1D/dilated": LayerRow(
        lambda: layers.Conv1D(4, 2, dilation_rate=3, groups=4, padding="same"),
        lambda w, x: timed.conv1d(x, *w, padding="same", dilation=3, groups=4),
        cut=AHEAD,
    ),
    "DepthwiseConv1D": LayerRow(
        lambda: layers.DepthwiseConv1D(3, 2, "same", 2, activation="tanh"),
        lambda w, x: timed.depthwise(x, *w, strides=2, padding="same", activation="tanh"),
        cut=AHEAD,
    ),
    "DepthwiseConv1D/causal": LayerRow(
        lambda: layers.DepthwiseConv1D(3, padding="causal", depth_multiplier=2, dilation_rate=2),
        lambda w, x: timed.depthwise(x, *w, padding="causal", dilation=2),
    ),
    "DepthwiseConv1D/causal_strides": LayerRow(
        lambda: layers.DepthwiseConv1D(3, 2, "causal"),
        lambda w, x: timed.depthwise(x, *w, padding="causal", strides=2),
        cut="It leaves out steps.",
    ),
    "SeparableConv1D/causal": LayerRow(
        lambda: layers.SeparableConv1D(3, 4, padding="causal"),
        lambda w, x: naive.dense(timed.depthwise(x, w[0], padding="causal"), w[1][0], w[2]),
        trained=UNTRAINED,
    ),
    "SeparableConv1D": LayerRow(
        lambda: layers.SeparableConv1D(3, 2, dilation_rate=2, depth_multiplier=2, use_bias=False),
        lambda w, x: naive.dense(timed.depthwise(x, w[0], dilation=2), w[1][0]),
        cut=AHEAD,
        trained=UNTRAINED,
    ),
    "MaxPooling1D": LayerRow(
        lambda: layers.MaxPooling1D(3, strides=2, padding="same"),
        lambda _, x: timed.pooled(max, x, 3, 2, "same"),
        cut=JOINS,
    ),
    "AveragePooling1D": LayerRow(
        lambda: layers.AveragePooling1D(3, strides=2, padding="same"),
        lambda _, x: timed.pooled(timed.mean, x, 3, 2, "same"),
        cut=JOINS,
    ),
    "AveragePooling1D/valid": LayerRow(
        lambda: layers.AveragePooling1D(2), lambda _, x: timed.pooled(timed.mean, x, 2), cut=JOINS
    ),
    "GlobalMaxPooling1D": LayerRow(
        lambda: layers.GlobalMaxPooling1D(), lambda _, x: timed.over_time(max, x), cut=WHOLE
    ),
    "GlobalAveragePooling1D": LayerRow(
        lambda: layers.GlobalAveragePooling1D(),
        lambda _, x: timed.over_time(timed.mean, x),
        cut=WHOLE,
    ),
    "GlobalAveragePooling1D/keepdims": LayerRow(
        lambda: layers.GlobalAveragePooling1D(keepdims=True),
        lambda _, x: [[row] for row in timed.over_time(timed.mean, x)],
        cut=WHOLE,
    ),
}

RESIZED = {
    "ZeroPadding1D": LayerRow(
        lambda: layers.ZeroPadding1D((2, 1)), lambda _, x: timed.with_zeros(x, 2, 1), cut=RESIZES
    ),
    "Cropping1D": LayerRow(
        lambda: layers.Cropping1D((2, 0)), lambda _, x: timed.cropped(x, 2, 0), cut=RESIZES
    ),
    "UpSampling1D": LayerRow(
        lambda: layers.UpSampling1D(2), lambda _, x: timed.each_twice(x), cut=RESIZES
    ),
    "Permute": LayerRow(
        lambda: layers.Permute((2, 1)),
        lambda _, x: values.turned(x),
        reads="six steps",
        cut="It moves the time axis.",
    ),
    "Permute/same": LayerRow(
        lambda: layers.Permute((1, 2)),
        lambda _, x: naive.rescaling(x, 2.0),
        model=before(lambda: layers.Rescaling(2.0)),
    ),
}

NORMALIZATIONS = {
    "LayerNormalization/over_time": LayerRow(
        lambda: layers.LayerNormalization(axis=1, epsilon=0.01),
        lambda w, x: values.turned(naive.layer_normalization(values.turned(x), *w, epsilon=0.01)),
        reads="six steps",
        cut=OVER,
    ),
    "LayerNormalization/over_both": LayerRow(
        lambda: layers.LayerNormalization(axis=[1, 2]),
        lambda w, x: values.reshaped(
            [
                naive.layer_normalization([values.flat(row)], *map(values.flat, w))
                for row in naive.lists(x)
            ],
            4,
        ),
        reads="six steps",
        cut=OVER,
    ),
    "BatchNormalization/by_step": LayerRow(
        lambda: layers.BatchNormalization(axis=1, trainable=False),
        lambda w, x: values.turned(
            naive.batch_normalization(values.turned(x), w[2], w[3], w[0], w[1])
        ),
        reads="six steps",
        cut="It has statistics for each step of a sequence.",
    ),
    "RMSNormalization": LayerRow(
        lambda: layers.RMSNormalization(epsilon=0.01),
        lambda w, x: timed.root_mean_square(x, w[0], 0.01),
    ),
    "RMSNormalization/over_time": LayerRow(
        lambda: layers.RMSNormalization(axis=1),
        lambda w, x: values.turned(timed.root_mean_square(values.turned(x), w[0], 1e-6)),
        reads="six steps",
        cut=OVER,
    ),
    "UnitNormalization": LayerRow(lambda: layers.UnitNormalization(), lambda _, x: timed.unit(x)),
    "UnitNormalization/over_time": LayerRow(
        lambda: layers.UnitNormalization(axis=1),
        lambda _, x: values.turned(timed.unit(values.turned(x))),
        cut=OVER,
    ),
    "GroupNormalization": LayerRow(
        lambda: layers.GroupNormalization(2, epsilon=0.01),
        lambda w, x: timed.group_normalization(x, 2, *w, epsilon=0.01),
        cut=OVER,
        trained="Its moments are over time; use LayerNormalization in what is trained.",
    ),
    "GroupNormalization/vector": LayerRow(
        lambda: layers.GroupNormalization(-1, center=False),
        lambda w, x: timed.groups_of_vectors(last(naive.simple_rnn(*w[:3]), x), 4, w[3]),
        model=lambda layer, _: Sequential([Input((None, 4)), layers.SimpleRNN(4), layer]),
        trained="Its moments are over time; use LayerNormalization in what is trained.",
    ),
}


def causal(layer: Any, reads: str) -> Model:
    """Later steps are hidden, and so are values that are all zeros; zeros ask for nothing."""
    symbols = inputs_of(reads)
    masked = [layers.Masking()(x) for x in symbols]
    return Model(symbols, layer(masked, use_causal_mask=True))


def naive_causal(score: Any) -> Any:
    """The oracle of `causal`: a query that is all zeros gets zeros."""

    def oracle(w: Any, x: Any, y: Any) -> Any:
        found = timed.attention(
            x, y, y, score(w), seen=lambda b, t, s: s <= t and values.differs(y)[b][s]
        )
        return np.where(np.array(values.differs(x))[..., None], found, 0)

    return oracle


def dropping(score: Any) -> Any:
    """In training, each weight of a value is dropped with the layer's rate."""

    return lambda layer, w, x, y: timed.attention(x, y, y, score(w), kept=kept_by(layer, x, y))


def kept_by(layer: Any, x: Any, y: Any) -> Any:
    """The factors of dropout: of each value for each query."""
    kept = drawn(layer, len(x), len(x[0]), len(y[0])) >= layer.dropout
    return (kept / (1 - layer.dropout)).tolist()


def scaled(w: Any) -> Any:
    """The score of Attention with a scale."""
    return lambda q, k: w[0] * timed.dot(q, k)


def of_vectors(layer: Any, reads: str) -> Model:
    """What a recurrent layer keeps of each input."""
    symbols, recurrent = inputs_of(reads), layers.SimpleRNN(3)
    return Model(symbols, layer([recurrent(x) for x in symbols]))


ATTENTION = {
    "Attention": LayerRow(
        lambda: layers.Attention(use_scale=True, dropout=0.25, seed=3),
        lambda w, x, y: timed.attention(x, y, y, scaled(w)),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
        training=dropping(scaled),
    ),
    "Attention/keys": LayerRow(
        lambda: layers.Attention(),
        lambda w, x, y: timed.attention(x, y, x, timed.dot),
        reads="two",
        model=lambda layer, reads: Model(s := inputs_of(reads), layer([s[0], s[1], s[0]])),
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "Attention/causal": LayerRow(
        lambda: layers.Attention(),
        naive_causal(lambda w: timed.dot),
        reads="two",
        model=causal,
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "Attention/concat": LayerRow(
        lambda: layers.Attention(use_scale=True, score_mode="concat"),
        lambda w, x, y: timed.attention(
            x, y, y, lambda q, k: w[1] * timed.sum_of_tanh(inner=w[0])(q, k)
        ),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "AdditiveAttention": LayerRow(
        lambda: layers.AdditiveAttention(use_scale=False, dropout=0.25, seed=3),
        lambda w, x, y: timed.attention(x, y, y, timed.sum_of_tanh()),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
        training=dropping(lambda w: timed.sum_of_tanh()),
    ),
    "AdditiveAttention/causal": LayerRow(
        lambda: layers.AdditiveAttention(),
        naive_causal(lambda w: timed.sum_of_tanh(w[0])),
        reads="two",
        model=causal,
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "MultiHeadAttention": LayerRow(
        lambda: layers.MultiHeadAttention(2, 3, value_dim=5, output_shape=6),
        lambda w, x, y: timed.multi_head_attention(w, x, y, y),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "MultiHeadAttention/keys": LayerRow(
        lambda: layers.MultiHeadAttention(3, 2),
        lambda w, x, y: timed.multi_head_attention(w, x, y, x),
        reads="two",
        model=lambda layer, reads: Model(s := inputs_of(reads), layer(s[0], s[1], key=s[0])),
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "MultiHeadAttention/dropping": LayerRow(
        lambda: layers.MultiHeadAttention(1, 3, dropout=0.25, attention_axes=1, seed=3),
        lambda w, x, y: timed.multi_head_attention(w, x, y, y),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
        training=lambda layer, w, x, y: timed.multi_head_attention(
            w, x, y, y, kept=kept_by(layer, x, y)
        ),
    ),
    "Dot": LayerRow(
        lambda: layers.Dot(2, normalize=True),
        lambda _, x, y: timed.each_pair(timed.cosine, x, y),
        reads="two of six",
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "Dot/over_time": LayerRow(
        lambda: layers.Dot((-2, 1)),
        lambda _, x, y: timed.each_pair(timed.dot, values.turned(x), values.turned(y)),
        reads="two",
        cut=WHOLE,
        trained=NO_GRADIENT,
    ),
    "Dot/vectors": LayerRow(
        lambda: layers.Dot(-1),
        lambda w, x, y: [
            [timed.dot(a, b)]
            for a, b in zip(*(last(naive.simple_rnn(*w), each) for each in (x, y)), strict=True)
        ],
        reads="two",
        model=of_vectors,
        trained=NO_GRADIENT,
    ),
}

TIME = {**CONVOLUTIONS, **RESIZED, **NORMALIZATIONS, **ATTENTION}
