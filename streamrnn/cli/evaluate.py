"""`streamrnn evaluate`: committed scores against what happened."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamrnn.cli.check import PipelineFile
from streamrnn.cli.report import Json, Quiet, Set, Verbose, count, print_json, print_table
from streamrnn.cli.values import rows as rows_of
from streamrnn.display import location
from streamrnn.errors import ConfigError

if TYPE_CHECKING:
    from streamrnn.outputs import Evaluation


def evaluate(
    pipeline: PipelineFile,
    overrides: Set = None,
    by: Annotated[
        Literal["stream", "month"] | None,
        typer.Option("--by", help="Add a line per stream, or per month of the rows' times."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Compare rows from this time on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Compare rows before this time.")
    ] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(
            metavar="Q,Q,…",
            help="The outputs are these quantiles: 0.1,0.5,0.9; default those of [train] loss.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the table to a .parquet."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the scores of past runs with what happened, as set in [target].

    Numbers: MAE, RMSE, and pinball loss of --quantiles, against persistence (forecast = value now)
    or the mean. Probabilities: log-loss, accuracy and AUC, against the base rate.
    """
    from streamrnn.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    found = job.evaluate(by, since=since, until=until, quantiles=_quantiles(quantiles), file=output)
    if as_json:
        print_json({"output": found.output, **found.counts(), "figures": rows_of(found.table)})
    elif not quiet:
        _print(found, by)
        if output is not None:
            print(f"wrote {location(output)}")


def _quantiles(text: str | None) -> list[float]:
    if text is None:
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"quantiles: expected numbers between 0 and 1, such as 0.1,0.5,0.9, received {text}"
        ) from None


def _print(found: "Evaluation", by: str | None) -> None:
    from streamrnn.outputs import not_compared

    names = found.table.column_names
    groups = names.index("output") if by else 0
    lines = [_cells(row, groups) for row in rows_of(found.table)]
    print_table([name.replace("_", " ") for name in names], lines)
    left = not_compared(found.counts())
    rest = f"; not compared: {left}" if left else ""
    print(f"\n{count(found.rows, 'row')} of {found.output} compared{rest}")


def _cells(row: dict[str, Any], groups: int) -> list[Any]:
    """Return the values of a line: "all" for the groups of all rows, four digits of figures."""
    values = [
        float(f"{value:.4g}") if isinstance(value, float) else value for value in row.values()
    ]
    if groups and all(value is None for value in values[:groups]):
        values[:groups] = ["all", *[""] * (groups - 1)]
    return values
