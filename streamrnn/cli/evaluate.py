"""`streamrnn evaluate`: committed scores against what happened."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamrnn.base.display import as_text, count, location
from streamrnn.cli.check import PipelineFile
from streamrnn.cli.report import Json, Quiet, Set, Verbose, print_json, print_table, verdict
from streamrnn.cli.report import rows as rows_of
from streamrnn.errors import ConfigError

if TYPE_CHECKING:
    from streamrnn.jobs.evaluation import Evaluation

_ZONE = "A time without an offset is in [source] time_zone, by default UTC."


def evaluate(
    pipeline: PipelineFile,
    overrides: Set = None,
    by: Annotated[
        Literal["stream", "month", "model"] | None,
        typer.Option(
            "--by",
            help="Add a line per stream, per month (of [source] time_zone, or of UTC), or per "
            "model that computed rows.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"Compare rows from this time on. {_ZONE}"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"Compare rows before this time. {_ZONE}"),
    ] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(
            metavar="Q,Q,…",
            help="The quantiles that the outputs are, such as 0.1,0.5,0.9; default: as in [output] "
            "quantiles, or in [train] loss.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Also write the table to a .parquet file."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the scores of past runs with what happened, as set in [target].

    For numbers: MAE and RMSE; for quantiles, pinball loss and CRPS, too. For probabilities:
    log-loss, accuracy, AUC and average precision. Baselines: persistence (forecast = value now),
    the mean or the base rate, and [target] season.
    """
    from streamrnn.jobs.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    evaluation = job.evaluate(
        by, since=since, until=until, quantiles=_quantiles(quantiles), file=output
    )
    if as_json:
        head = {"output": evaluation.output, **evaluation.counts()}
        tail = {"baselines": evaluation.baselines, "notes": evaluation.notes}
        print_json({**head, **tail, "figures": rows_of(evaluation.table)})
    elif not quiet:
        _print(evaluation, by)
        if output is not None:
            print(f"wrote {location(output)}")


def _quantiles(text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"quantiles: expected numbers above 0 and below 1, such as 0.1,0.5,0.9, received {text}"
        ) from None


def _print(evaluation: "Evaluation", by: str | None) -> None:
    from streamrnn.jobs.evaluation import not_compared

    names = evaluation.table.column_names
    groups = names.index("output") if by else 0
    figures = [name for name in names[groups:] if not _is_detail(name, names)]
    shown = [*names[:groups], *figures]
    lines = rows_of(evaluation.table)
    heads = {"month": f"month ({evaluation.zone})"} if evaluation.zone else {}
    print_table(
        [heads.get(name, name.replace("_", " ")) for name in shown],
        [_cells(row, shown, groups) for row in lines],
    )
    print()
    for row in lines:
        if not groups or row[names[0]] is None:
            _print_verdict(row)
    best = {row.get("best_baseline") for row in lines}
    for name, text in evaluation.baselines.items():
        if name in best or any(column.endswith(f"_{name}") for column in figures):
            print(f"{name.replace('_', ' ')}: {text}")
    left = not_compared(evaluation.counts())
    rest = f"; not compared: {left}" if left else ""
    print(f"{count(evaluation.rows, 'row')} of {evaluation.output} compared{rest}")
    print("".join(f"note     {note}\n" for note in evaluation.notes), end="")


def _is_detail(name: str, names: list[str]) -> bool:
    """Return whether only --json and --output have a column, so that lines are not too long."""
    detail = name.startswith(("rows_", "better_", "mae_")) or "_where_" in name
    detail = detail or (name.startswith("rmse_") and "pinball" in names)
    return detail or name in ("best_baseline", "auc_error")


def _print_verdict(row: dict[str, Any]) -> None:
    """Print how an output compares with the best baseline, over the rows that both have."""
    baseline = row.get("best_baseline")
    if baseline is None:
        return
    better = -math.inf if row["better"] is None else row["better"]
    rows = row.get(f"rows_{baseline}") or row["rows"]
    measures = ("rmse", "pinball", "accuracy", "log_loss")
    figure = next(name for name in reversed(measures) if row.get(f"{name}_{baseline}") is not None)
    model = row.get(f"{figure}_where_{baseline}", row[figure])
    print(
        f"{row['output']}: {verdict(better, baseline.replace('_', ' '))} "
        f"({figure.replace('_', '-')} {model:.4g} against {row[f'{figure}_{baseline}']:.4g}"
        f"{'' if rows == row['rows'] else f', {rows:,} rows'})"
    )


def _cells(row: dict[str, Any], shown: list[str], groups: int) -> list[Any]:
    """Return the cells of a line: "all" for the group of all rows, figures with four digits."""
    # Names are text: an id 1000 is not 1,000.
    values: list[Any] = [as_text(row[name]) for name in shown[:groups]]
    if groups and row[shown[0]] is None:
        values = ["all", *[""] * (groups - 1)]
    for name in shown[groups:]:
        value = row[name]
        if name == "better" and value is not None:
            value = f"{max(value, -9.99):.0%}"
        values.append(float(f"{value:.4g}") if isinstance(value, float) else value)
    return values
