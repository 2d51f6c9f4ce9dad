"""The oracle of layers that look along the time axis: nested lists, no streamrnn, no numpy.

Definitions of Keras 3: keras.ops.conv, max_pool, average_pool and the layers of those names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import naive
import naive_values as values_of

Steps = list[list[float]]


def _pads(steps: int, size: int, strides: int, padding: str) -> tuple[int, int]:
    """What is missing for ceil(steps / strides) windows of `size`, the odd one at the end."""
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return size - 1, 0
    missing = max((math.ceil(steps / strides) - 1) * strides + size - steps, 0)
    return missing // 2, missing - missing // 2


def _windows(x_TF: Steps, size: int, strides: int, dilation: int, padding: str) -> list[Any]:
    """The inputs of each window; None outside of the sequence."""
    reach = (size - 1) * dilation + 1
    before, after = _pads(len(x_TF), reach, strides, padding)
    seen = [None] * before + x_TF + [None] * after
    starts = range(0, len(seen) - reach + 1, strides)
    return [[seen[start + k * dilation] for k in range(size)] for start in starts]


def conv1d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    groups: int = 1,
    activation: str | None = None,
) -> Any:
    """Each group of filters sees its share of the features."""
    taps, share, filters = len(kernel), len(kernel[0]), len(kernel[0][0])

    def filtered(window: list[Any], u: int) -> float:
        first = u // (filters // groups) * share
        total = bias[u] if bias is not None else 0.0
        for k in range(taps):
            if window[k] is not None:
                total += sum(window[k][first + f] * kernel[k][f][u] for f in range(share))
        return total

    return [
        [
            naive.activate(activation, [filtered(window, u) for u in range(filters)])
            for window in _windows(row, taps, strides, dilation, padding)
        ]
        for row in naive.lists(x)
    ]


def depthwise(x: Any, kernel: Any, bias: Any = None, **options: Any) -> Any:
    """A convolution with as many groups as features; kernel (K, F, M)."""
    features = len(kernel[0])
    joined = [[[value for row in tap for value in row]] for tap in kernel]
    return conv1d(x, joined, bias, groups=features, **options)


def pooled(
    function: Callable[[list[float]], float],
    x: Any,
    size: int,
    strides: int | None = None,
    padding: str = "valid",
) -> Any:
    """A function of each feature's values in each window, without padding."""

    def of(window: list[Any]) -> list[float]:
        return [function(list(values)) for values in zip(*filter(None, window), strict=True)]

    return [
        [of(window) for window in _windows(row, size, strides or size, 1, padding)]
        for row in naive.lists(x)
    ]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def over_time(function: Callable[[list[float]], float], x: Any) -> Any:
    """A function of each feature's values in a sequence."""
    return [[function(list(values)) for values in zip(*row, strict=True)] for row in naive.lists(x)]


def with_zeros(x: Any, before: int, after: int) -> Any:
    return [
        [[0.0] * len(row[0])] * before + row + [[0.0] * len(row[0])] * after
        for row in naive.lists(x)
    ]


def cropped(x: Any, first: int, last: int) -> Any:
    return [row[first : len(row) - last] for row in naive.lists(x)]


def each_twice(x: Any) -> Any:
    return [[step for step in row for _ in range(2)] for row in naive.lists(x)]


def root_mean_square(x: Any, scale: Any, epsilon: float) -> Any:
    """Zhang and Sennrich 2019, equation 4, over the last axis."""

    def normalize(row: list[float]) -> list[float]:
        root = math.sqrt(mean([value * value for value in row]) + epsilon)
        return [value / root * factor for value, factor in zip(row, scale, strict=True)]

    return naive.last_axis(normalize, x)


def unit(x: Any) -> Any:
    """Vectors of the last axis divided by their length, which counts as 1e-12 at least."""
    return naive.last_axis(lambda row: [value / max(math.hypot(*row), 1e-12) for value in row], x)


def group_normalization(
    x: Any, groups: int, gamma: Any, beta: Any = None, epsilon: float = 1e-3
) -> Any:
    """Wu and He 2018, equations 1 to 7: moments over the steps and a share of the features."""
    batch = []
    for row in naive.lists(x):
        share = len(row[0]) // groups
        made = [list(step) for step in row]
        for first in range(0, len(row[0]), share):
            group = [value for step in row for value in step[first : first + share]]
            center = mean(group)
            spread = math.sqrt(mean([(value - center) ** 2 for value in group]) + epsilon)
            for step in made:
                for f in range(first, first + share):
                    offset = 0.0 if beta is None else beta[f]
                    step[f] = (step[f] - center) / spread * gamma[f] + offset
        batch.append(made)
    return batch


def groups_of_vectors(x: Any, groups: int, gamma: Any) -> Any:
    """The same of vectors, which have one step."""
    return [row[0] for row in group_normalization([[v] for v in naive.lists(x)], groups, gamma)]


def attention(
    queries: Any,
    values: Any,
    keys: Any,
    score: Callable[[list[float], list[float]], float],
    *,
    seen: Callable[[int, int, int], bool] = lambda b, t, s: True,
    kept: Any = None,
) -> Any:
    """Keras's layers of that name: means of the values, weighted by the softmax of the scores.

    seen(row, query, key): whether the key counts. kept[row][query][key]: the factor of dropout.
    """

    def mean(b: int, t: int) -> list[float]:
        scores = [
            score(queries[b][t], key) - (0 if seen(b, t, s) else 1e9)
            for s, key in enumerate(keys[b])
        ]
        weights = naive.activate("softmax", scores)
        if kept is not None:
            weights = [w * factor for w, factor in zip(weights, kept[b][t], strict=True)]
        columns = zip(*values[b], strict=True)
        return [sum(w * v for w, v in zip(weights, column, strict=True)) for column in columns]

    return [[mean(b, t) for t in range(len(row))] for b, row in enumerate(queries)]


def dot(a: list[float], b: list[float]) -> float:
    """The sum of the products of two vectors' elements."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def sum_of_tanh(weights: list[float] | None = None, inner: float = 1.0) -> Callable[..., float]:
    """The score sum of w tanh(inner (query + key)) over features; by default, each w is 1."""
    return lambda q, k: dot(
        weights or [1.0] * len(q),
        [math.tanh(inner * (a + b)) for a, b in zip(q, k, strict=True)],
    )


def cosine(a: list[float], b: list[float]) -> float:
    """The dot product of two vectors, each divided by its length."""
    lengths = math.sqrt(dot(a, a)), math.sqrt(dot(b, b))
    return dot(a, b) / lengths[0] / lengths[1] if min(lengths) else 0.0


def each_pair(product: Callable[..., float], xs: Any, ys: Any) -> Any:
    """A product of each vector of a row in x with each of the row in y."""
    return [[[product(a, b) for b in y] for a in x] for x, y in zip(xs, ys, strict=True)]


def multi_head_attention(
    w: Any, queries: Any, values: Any, keys: Any, **options: Any
) -> list[list[list[float]]]:
    """Vaswani et al. 2017, section 3.2.2, with Keras's weights: kernel and bias of four layers."""
    heads, size = len(w[0][0]), len(w[0][0][0])
    parts = []
    for h in range(heads):
        q, k, v = (
            naive.dense(x, [row[h] for row in kernel], bias[h])
            for x, kernel, bias in zip((queries, keys, values), w[0:6:2], w[1:6:2], strict=True)
        )
        mean = attention(q, v, k, lambda a, b: dot(a, b) / math.sqrt(size), **options)
        part = naive.dense(mean, w[6][h], None if h else w[7])
        parts.append(part)
    return values_of.each(values_of.total, *parts)
