"""The picture of a pipeline's features over time, beside the model's Normalization."""

from streamrnn.base.display import count
from streamrnn.jobs.preflight import scaling_of
from streamrnn.plugins.report.numbers.source_values import SourceColumn, SourceValues
from streamrnn.plugins.report.pictures.picture import Drawn, Panel, Picture
from streamrnn.plugins.report.subject import Subject
from streamrnn.plugins.report.words import (
    axis,
    between,
    buckets_of,
    per,
    rows_of_columns,
    short,
    span,
)
from streamrnn.stream.scoring import LoadedPipeline

MOST_FEATURES = 12
_SHARES = (0.1, 0.5, 0.9)


def feature_columns(loaded: LoadedPipeline) -> list[SourceColumn]:
    """Return the features of numbers that are drawn: the first ones."""
    return [
        SourceColumn(f.name, f.valid, f.clip)
        for f in loaded.contract.features
        if f.kind == "float32" and f.vocabulary is None
    ][:MOST_FEATURES]


def features_over_time(subject: Subject, values: SourceValues, loaded: LoadedPipeline) -> Picture:
    """Return the median of each feature, and the band of 80 % of its values."""
    scaling = scaling_of(loaded)
    quantiles = values.sample.quantiles(_SHARES)
    at = axis(subject.timeline, subject.timed)
    panels = []
    for index, column in enumerate(values.columns):
        columns = {
            **buckets_of(subject.timeline, subject.timed),
            "low": quantiles[:, index, 0],
            "median": quantiles[:, index, 1],
            "high": quantiles[:, index, 2],
        }
        panels.append(Panel(column.name, rows_of_columns(columns), scaling.get(column.name)))
    notes = ["Values after valid and clip, from the source as it is now."]
    if scaling:
        notes.append(
            "Behind them: the mean of the model's Normalization (dashed), and one deviation on "
            "both sides of it."
        )
    else:
        notes.append("The model has no Normalization to compare them with.")
    left = len(loaded.contract.features) - len(panels)
    if left:
        notes.append(
            f"Not drawn: {count(left, 'feature')}, of ids or text, or beyond the first "
            f"{MOST_FEATURES}."
        )
    return Picture(
        "features",
        f"Features {per(subject.timeline, subject.timed)}",
        _sentence(panels, bool(scaling)),
        "band",
        panels,
        [Drawn("high", "10 to 90 % of the values", "low"), Drawn("median", "median")],
        y_title="Each in its own unit",
        notes=notes,
        **at,
    )


def _sentence(panels: list[Panel], scaled: bool) -> str:
    """Return which features leave the model's range most, or where their medians lie."""
    far = []
    for panel in panels:
        ends = span(panel.rows, "median")  # type: ignore[arg-type]
        if ends and panel.reference and panel.reference[1] > 0:
            mean, deviation = panel.reference
            far.append((max(abs(end - mean) for end in ends) / deviation, panel.label))
    if scaled and far:
        distance, name = max(far)
        return (
            f"The median that is farthest from the mean of the Normalization is that of {name}, "
            f"by {short(distance)} deviations."
        )
    ends = span(panels[0].rows, "median")  # type: ignore[arg-type]
    if ends is None:
        return f"{panels[0].label} has no finite value."
    return f"Median {panels[0].label} {between(ends)}."
