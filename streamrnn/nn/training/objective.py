"""The objective of a compiled model: losses, their weights, and metrics of each output.

Values for several outputs are passed as a list, in the order of the outputs, or by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, DataError, ShapeError, UnsupportedError
from streamrnn.nn.models import Model
from streamrnn.nn.training.batches import Batch
from streamrnn.nn.training.loss import numbers_of
from streamrnn.nn.training.losses import Loss, loss_of
from streamrnn.nn.training.metrics import Metric, metric_of


class Head(NamedTuple):
    """One output: its loss (or None), the loss's factor, and its metrics."""

    name: str
    loss: Loss | None
    factor: float | None
    plain: list[Metric]
    weighted: list[Metric]


class Objective:
    """Losses and metrics of the outputs of one model."""

    def __init__(
        self, model: Model, loss: Any, factors: Any, metrics: Any, weighted_metrics: Any
    ) -> None:
        symbols = model.graph.outputs
        self.names = output_names(model)
        losses = _losses(loss, self.names)
        scales = _factors(factors, self.names)
        plain = _metrics("metrics", metrics, self.names)
        weighted = _metrics("weighted_metrics", weighted_metrics, self.names)
        self.heads = []
        for number, symbol in enumerate(symbols):
            units = int(symbol.shape[-1] or 0)
            # None for an output without a loss, which may have metrics; some depend on the loss.
            own: Any = losses[number]
            of_plain, of_weighted = (
                [metric_of(metric, own, units) for metric in group[number]]
                for group in (plain, weighted)
            )
            head = Head(self.names[number], own, scales[number], of_plain, of_weighted)
            self.heads.append(head)
        for metric in self.metrics:
            if sum(other is metric for other in self.metrics) > 1:
                raise ArgumentError(
                    f"compile: the metric {metric.name!r} is given twice, and would sum the values "
                    "of both places; make a metric object for each place"
                )
        self.needed = [bool(head.loss or head.plain or head.weighted) for head in self.heads]
        self._named = _named(self.heads)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of all outputs: plain ones first, as in reports."""
        plain = [metric for head in self.heads for metric in head.plain]
        return plain + [metric for head in self.heads for metric in head.weighted]

    @property
    def loss(self) -> Any:
        """The loss, or a list of losses for several outputs."""
        losses = [head.loss for head in self.heads]
        return losses if len(losses) > 1 else losses[0]

    def require_gradients(self) -> None:
        """Raise UnsupportedError, naming the loss, if a loss has no gradient."""
        for head in self.heads:
            if head.loss is not None:
                head.loss.require_gradient()

    def reset(self) -> None:
        """Forget the samples of all metrics."""
        for metric in self.metrics:
            metric.reset_state()

    def judge(
        self, batch: Batch, outputs: Sequence[Floats], masks: Sequence[Array | None]
    ) -> tuple[list[float], list[Floats | None]]:
        """Return the losses, and the gradient of each output; add the batch to the metrics.

        Losses: the total, and then, if several outputs have a loss, the loss of each. Gradients are
        of the total; None for an output without a loss.
        """
        values: list[float] = []
        slopes: list[Floats | None] = []
        total = 0.0
        for number, head in enumerate(self.heads):
            output, mask = np.ascontiguousarray(outputs[number]), masks[number]
            if mask is not None and mask.ndim >= output.ndim:
                mask = None
            y, weight = batch.y[number], batch.weights[number]
            slopes.append(None)
            if head.loss is not None:
                truth = head.loss.truth(y, output)
                value, slope = head.loss.with_slope(truth, output, weight, mask)
                values.append(value)
                if head.factor is not None:
                    value, slope = value * head.factor, slope * np.float32(head.factor)
                total, slopes[number] = total + value, slope
            for metric in head.plain:
                metric.add_batch(y, output, batch.labelled, mask)
            for metric in head.weighted:
                metric.add_batch(y, output, weight, mask)
        return [total, *values] if len(values) > 1 else [total], slopes

    def logs(self, values: Sequence[float]) -> dict[str, float]:
        """Return losses and metrics by the names of Keras: "loss", "out_a_loss", "out_a_mae"."""
        logs: dict[str, Any] = {"loss": values[0]}
        with_loss = [head.name for head in self.heads if head.loss is not None]
        for name, value in zip(with_loss, values[1:], strict=False):
            logs[f"{name}_loss"] = value
        for name, metric in self._named.items():
            result = metric.result()
            if np.asarray(result).dtype.kind not in "fiub":
                raise ArgumentError(
                    f"{metric}: result must return a number, or an array of numbers, received "
                    f"{result!r}"
                )
            logs[name] = np.asarray(result) if np.ndim(result) else float(result)
        return logs

    def listed(self, logs: Mapping[str, float]) -> list[float]:
        """Return the values of logs in the order of Keras's lists."""
        names = ["loss", *(metric.name for metric in self.metrics)]
        names += [f"{head.name}_loss" for head in self.heads if head.loss is not None]
        first = [name for name in dict.fromkeys(names) if name in logs]
        return [logs[name] for name in [*first, *sorted(set(logs) - set(first))]]


def _losses(losses: Any, names: Sequence[str]) -> list[Loss | None]:
    by_head = by_output("compile: loss", losses, names, partly=False)
    if by_head is None and isinstance(losses, list | tuple):
        raise ArgumentError(
            f"compile: expected as many losses as outputs, {len(names)} ({', '.join(names)}), "
            f"received {len(losses)}; None stands for an output without a loss"
        )
    checked = [None if loss is None else loss_of(loss) for loss in by_head or [losses] * len(names)]
    if not any(checked):
        raise ArgumentError("compile: expected a loss, as in compile('adam', loss='mse')")
    return checked


def _factors(loss_weights: Any, names: Sequence[str]) -> list[float | None]:
    if loss_weights is None:
        return [None] * len(names)
    if len(names) == 1 and not isinstance(loss_weights, list | tuple | Mapping):
        loss_weights = [loss_weights]
    factors = by_output("compile: loss_weights", loss_weights, names, partly=False)
    if factors is None or not all(factor is None or np.ndim(factor) == 0 for factor in factors):
        raise ArgumentError(
            f"compile: loss_weights must be a number for each of {len(names)} outputs "
            f"({', '.join(names)}), received {loss_weights!r}"
        )
    return [None if factor is None else float(factor) for factor in factors]


def _metrics(argument: str, metrics: Any, names: Sequence[str]) -> list[list[Any]]:
    """Return the metrics of each output; None leaves an output without metrics."""
    if not metrics:
        return [[] for _ in names]
    if len(names) == 1 and not isinstance(metrics, Mapping):
        return [list(_flat(metrics))]
    by_head = by_output(f"compile: {argument}", metrics, names, partly=True)
    if by_head is None:
        raise ArgumentError(
            f"compile: {argument} of a model with several outputs must be a list with an item for "
            f"each of {', '.join(names)}, or a dictionary by these names; received {metrics!r}"
        )
    return [list(_flat(of_head)) for of_head in by_head]


def _flat(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    if isinstance(metrics, list | tuple):
        return [metric for item in metrics for metric in _flat(item)]
    return [metrics]


def _named(heads: Sequence[Head]) -> dict[str, Metric]:
    """Return the metrics by name; with several outputs, names begin with the output's name.

    A name that is taken gets "weighted_", if the metric is weighted, and otherwise a number.
    """
    named: dict[str, Metric] = {}
    counts: dict[str, int] = {}
    for weighted in (False, True):
        for head in heads:
            prefix = f"{head.name}_" if len(heads) > 1 else ""
            for metric in head.weighted if weighted else head.plain:
                name = f"{prefix}{metric.name}"
                if weighted and name in counts:
                    name = f"{prefix}weighted_{metric.name}"
                number = counts[name] = counts.get(name, -1) + 1
                named[f"{name}_{number}" if number else name] = metric
    return named


# ---- values for the outputs


def output_names(model: Model) -> list[str]:
    """Return the names of outputs as in Keras: the names of layers, or the keys of a dictionary.

    Raises UnsupportedError for nested outputs, and for two outputs of one name.
    """
    structure = model.output
    if isinstance(structure, dict):
        names = [str(name) for name in structure]
        if len(names) != len(model.graph.outputs):
            raise UnsupportedError(
                f"{model}: training with nested outputs is not supported; make each value of the "
                "dictionary of outputs one symbol"
            )
        return names
    names = [symbol.layer.name for symbol in model.graph.outputs]
    if len(set(names)) < len(names):
        raise UnsupportedError(
            f"{model}: training needs a name for each output, but two outputs are of one layer: "
            f"{', '.join(names)}; pass them through layers.Identity(name=...)"
        )
    return names


def by_output(
    argument: str, values: Any, names: Sequence[str], *, partly: bool
) -> list[Any] | None:
    """Return the values of a list or a dictionary, in the order of the outputs.

    None for anything else, such as a list of another length. partly: a dictionary may leave out
    outputs, whose value is then None. Raises ArgumentError for other names.
    """
    if isinstance(values, Mapping):
        unknown = [name for name in values if name not in names]
        missing = [name for name in names if name not in values]
        if unknown or (missing and not partly):
            near = closest(str(unknown[0]), names) if unknown else None
            raise ArgumentError(
                f"{argument}: expected the outputs {', '.join(names)}, received "
                f"{', '.join(map(str, values))}"
                + (f"; did you mean {near!r}?" if near else "")
                + ("; an output may have the value None" if missing and not partly else "")
            )
        return [values.get(name) for name in names]
    if isinstance(values, list | tuple) and len(values) == len(names):
        return list(values)
    return None


def truths_of(model: Model, y: Any, names: Sequence[str], needed: Sequence[bool]) -> list[Any]:
    """Return y for each output as an array; None for an output without y that needs none.

    A list may leave out all outputs that have neither a loss nor a metric. Raises ArgumentError,
    and DataError for nulls.
    """
    if y is None:
        raise ArgumentError(f"{model}: expected y, the truth, received None")
    if len(names) == 1:
        truths = by_output("y", y, names, partly=False) if isinstance(y, Mapping) else [y]
    else:
        truths = by_output("y", y, names, partly=True)
        if truths is None and isinstance(y, list | tuple) and len(y) == sum(needed):
            rest = iter(y)
            truths = [next(rest) if need else None for need in needed]
    if truths is None:
        received = f"{len(y)} arrays" if isinstance(y, list | tuple) else type(y).__name__
        raise ArgumentError(
            f"{model}: expected y as a list or dictionary of {len(names)} arrays, one for each of "
            f"{', '.join(names)}; received {received}"
        )
    for name, truth, need in zip(names, truths, needed, strict=True):
        if getattr(truth, "null_count", 0):
            raise DataError(
                f"{model}: y of the output {name!r} has nulls ({truth.null_count}); fill them, or "
                "leave out their rows"
            )
        if need and truth is None:
            raise ArgumentError(
                f"{model}: expected y for the output {name!r}, which has a loss or metrics"
            )
    return [None if truth is None else np.asarray(truth) for truth in truths]


def weights_of_samples(model: Model, sample_weight: Any, names: Sequence[str]) -> list[Any]:
    """Return sample weights for each output: its own, or the same array for all; None if unset."""
    weights: list[Any] | None = [sample_weight] * len(names)
    # A list of arrays, rather than one array as a list of numbers.
    listed = isinstance(sample_weight, list | tuple) and any(
        weight is None or np.ndim(weight) for weight in sample_weight
    )
    if isinstance(sample_weight, Mapping) or (len(names) > 1 and listed):
        weights = by_output("sample_weight", sample_weight, names, partly=True)
    if weights is None:
        raise ShapeError(
            f"{model}: expected sample_weight as an array for all outputs, or one for each of "
            f"{', '.join(names)}"
        )
    return [
        None if weight is None else numbers_of(model, weight, "sample_weight").astype(np.float32)
        for weight in weights
    ]
