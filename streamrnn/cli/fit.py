"""`streamrnn fit`: train a model, and print a summary."""

from typing import TYPE_CHECKING, Annotated

import typer

from streamrnn.base.display import count
from streamrnn.cli.check import PipelineFile
from streamrnn.cli.process import stop_on_signal
from streamrnn.cli.report import Json, Quiet, Set, Verbose, print_json, progress, verdict
from streamrnn.cli.run import INTERRUPTED, row_notes

if TYPE_CHECKING:
    from streamrnn.jobs.fitting import FitSummary


def fit(
    pipeline: PipelineFile,
    overrides: Set = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train on the first N rows; write nothing."),
    ] = None,
    extend: Annotated[
        bool, typer.Option("--continue", help="Train the model of the last fit on new rows only.")
    ] = False,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Discard the last fit here, and start over.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model file that no fit wrote.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train N models side by side: [train] seeds."),
    ] = None,
    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-rate", help="Try learning rates from low to high, propose one; write nothing."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the model on the source, as set in [target] and [train], with carried state.

    Writes [model] path, and beside it the folder PATH.fit with the history and the state after the
    last row. An interrupted fit resumes, and its weights have the bits of an uninterrupted fit.
    """
    if extend and (full_refresh or limit is not None):
        raise typer.BadParameter("--continue cannot be combined with --full-refresh or --limit")
    if find_rate and (extend or full_refresh or overwrite or seeds is not None):
        raise typer.BadParameter(
            "--find-rate cannot be combined with --continue, --full-refresh, --overwrite or --seeds"
        )
    from streamrnn.jobs.pipeline import Pipeline

    several = [] if seeds is None else [f"train.seeds={seeds}"]
    job = Pipeline.from_toml(pipeline, [*(overrides or []), *several])
    on_workers = job.config.train.seeds > 1
    with progress(quiet, of_fit=True) as show, stop_on_signal(on_workers=on_workers) as stop:
        summary = job.fit(
            extend=extend,
            full_refresh=full_refresh,
            overwrite=overwrite,
            limit=limit,
            find_rate=find_rate,
            progress=show,
            stop=stop,
        )
    if as_json:
        print_json(summary.as_dict())
    elif not quiet:
        print(_rates(summary) if find_rate else in_words(summary, written=limit is None))
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)


def _rates(summary: "FitSummary") -> str:
    if summary.interrupted:
        return "Interrupted, so no learning rate is proposed. Nothing was written."
    s, lines = summary, ["learning rate  loss"]
    lines += [f"{rate:<13.2g}  {loss:.4g}" for rate, loss in s.rates[::10]]
    good = s.good_rate
    lines.append(
        "No rate lowered the loss. Check the labels, and the features: streamrnn validate PIPELINE"
        if good is None
        else f"start from learning_rate = {good:.1g} in [train] optimizer, a tenth of the rate at "
        f"which the loss was lowest ({count(s.updates, 'update')})"
    )
    return "\n".join(lines)


def in_words(summary: "FitSummary", *, written: bool = True) -> str:
    """Return the summary of a fit: rows, epochs, errors against baselines, and files."""
    s = summary
    if s.nothing_new:
        return f"Nothing new since the last fit.\nmodel    {s.model}"
    read = [
        f"{count(s.rows, 'row')} of {count(s.streams, 'stream')}, {count(s.labels, 'label')} to "
        f"train on, {count(s.validation_rows, 'row')} for validation; "
        f"{count(s.epochs, 'epoch')}, {count(s.updates, 'update')} in {s.seconds:.1f} s"
    ]
    lines = read if s.rows or not s.interrupted else []
    if s.seeds:
        lines.append(_seeds(s))
    best = s.best
    if best and (s.seed is not None or not s.seeds):
        of = f"epoch {best['epoch']}"
        losses = f"loss {best['loss']:.4g}"
        if "val_loss" in best:
            of += " (the best)" if s.best_epoch else ""
            losses += f", validation {best['val_loss']:.4g}"
        if s.scaled:
            losses += " (of standardized labels)"
        lines.append(f"result   {of}: {losses}")
    if s.shifts:
        lines.append(
            f"shifts   {', '.join(f'{shift:+.4g}' for shift in s.shifts)} added to the quantiles, "
            "as computed from the validation rows"
        )
    if s.better and (s.seed is not None or not s.seeds):
        lines += _errors(s)
    if s.interrupted and s.committed:
        lines.append("Interrupted after a commit; rerun the same command to resume.")
    elif s.interrupted:
        lines.append("Interrupted; nothing was committed. Rerun the same command to start over.")
    elif written:
        lines.append(f"model    {s.model}")
        lines.append(f"history  {s.folder}/history.parquet")
        if s.state:
            lines.append(
                f"state    {s.state}; a run with it as [state] init starts at the next row"
            )
    notes = row_notes(s.counts, s.unknown_by_feature, "a feature was null", "")
    return "\n".join([*lines, *(f"note     {note}" for note in [*notes, *s.notes])])


def _errors(s: "FitSummary") -> list[str]:
    """Describe the errors of the model and of baselines, each over its own rows."""
    best, shares, texts = s.best, s.better, []
    names = {name: name for name in shares} | {"seasonal": f"seasonal ({s.season})"}
    for baseline in shares:
        model, rows = best[f"val_rmse_where_{baseline}"], int(best[f"{baseline}_rows"])
        there = f" ({count(rows, 'row')}; model {model:.4g})" if model != best["val_rmse"] else ""
        texts.append(f"{names[baseline]} {best[f'{baseline}_rmse']:.4g}{there}")
    least = min(shares, key=shares.__getitem__)
    return [
        f"errors   RMSE {best['val_rmse']:.4g}, MAE {best['val_mae']:.4g}: "
        f"{verdict(shares[least], names[least])}",
        f"against  RMSE of {', '.join(texts)}",
    ]


def _seeds(s: "FitSummary") -> str:
    losses = [of.best["val_loss"] for of in s.seeds if "val_loss" in of.best]
    text = f"seeds    {s.seeds[0].seed} to {s.seeds[-1].seed}"
    if losses:
        text += f": validation {min(losses):.4g} to {max(losses):.4g}"
    if s.interrupted:
        return text
    kept = (
        "all of them, with the outputs mean and spread"
        if s.seed is None
        else f"the one of seed {s.seed}, the best"
    )
    return f"{text}; the model is {kept}"
