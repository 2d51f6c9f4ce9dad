"""`streamrnn verify`, `rewind`, `publish` and `compact`: an output folder and its commits."""

from contextlib import suppress
from dataclasses import asdict
from os.path import commonpath
from typing import Annotated

import typer

from streamrnn.base.display import count, location, short_model
from streamrnn.cli.report import Json, Verbose, print_json, print_table
from streamrnn.errors import PublishError

Output = Annotated[str, typer.Argument(metavar="OUT", help="The output folder of a run.")]
Rejects = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The directory of the rejects, if they were moved."),
]


def verify(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Check an output. Every committed file is read and compared with its checksum.

    The checksums that it prints are equal if rows and states are equal, however runs were cut.
    """
    from streamrnn.jobs import outputs

    output = outputs.verify(out, rejects=rejects)
    if as_json:
        print_json(asdict(output))
    else:
        parts = f"{count(output.parts, 'part')} with {count(output.rows, 'row')}"
        parts += f" ({output.live:,} read by sessions)" if output.live else ""
        parts += f", {count(output.rejected, 'reject')}" if output.rejected else ""
        print(
            f"{location(out)} is intact: commit {output.commit}, {parts}, "
            f"state of {count(output.state_rows, 'stream')}, {output.bytes / 1e6:,.1f} MB\n"
            f"checksum {output.rows_checksum} of the rows, {output.state_checksum} of the state"
        )
        print("".join(f"note     {table}\n" for table in output.left), end="")
    if output.behind:
        raise PublishError("\n".join(output.behind))


def rewind(
    out: Output,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", help="The commit to return to.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="FILE|TIME",
            help="Go back to the last commit that was made before this time, or before this file "
            "or partition was read.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also drop rows of sessions, which no source has.")
    ] = False,
    rejects: Rejects = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the retained commits, or return to one: --to or --before drops all later rows."""
    from streamrnn.jobs import outputs

    if to is not None or before is not None:
        manifest = outputs.rewind(out, to, before=before, rejects=rejects, force=force)
        if as_json:
            print_json(
                {
                    "commit": manifest.commit,
                    "rows": manifest.rows,
                    "files": len(manifest.sources),
                    "streams": manifest.state_rows,
                }
            )
        else:
            print(
                f"{location(out)} is back at {count(manifest.rows, 'row')} of "
                f"{count(len(manifest.sources), 'file')}, state of "
                f"{count(manifest.state_rows, 'stream')} (now commit {manifest.commit}); the next "
                "run resumes from there"
            )
        return
    commits = [
        {
            "commit": kept.commit,
            "time": kept.time,
            "rows": kept.rows,
            "of_sessions": kept.live,
            "rejected": kept.rejected,
            "streams": kept.state_rows,
            "files": kept.sources,
            "newest_file": kept.newest,
            "model": short_model(kept.model),
            "complete": kept.complete,
        }
        for kept in outputs.history(out)
    ]
    if as_json:
        print_json(commits)
        return
    newest, folder = [str(commit["newest_file"]) for commit in commits], ""
    with suppress(ValueError):  # no paths, or a mix of absolute and relative ones
        folder = commonpath([path.rpartition("/")[0] for path in newest if path])
    for commit, path in zip(commits, newest, strict=True):
        commit["newest_file"] = path.removeprefix(folder).lstrip("/")
        if not commits[-1]["of_sessions"]:
            del commit["of_sessions"]
    print_table(
        [name.replace("_", " ") for name in commits[0]], [commit.values() for commit in commits]
    )
    if len(commits) > 1:
        again = f"streamrnn rewind {location(out)} --to N"
        print(f"\nthe last one is current; return to another with: {again}")
    else:
        print("\nno older commit is kept beside this one; [checkpoint] keep sets how many are")


def publish(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Bring the tables of [publish] up to date. A run does so by itself."""
    from streamrnn.jobs import outputs

    done = outputs.publish(out, rejects=rejects)
    if as_json:
        print_json([asdict(item) for item in done])
    elif not done:
        print(f"{location(out)}: every table of [publish] is up to date")
    else:
        print("\n".join(map(str, done)))


def compact(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Merge small parts into larger ones. Rows, their order and the state do not change."""
    from streamrnn.jobs import outputs
    from streamrnn.stream.config import SIDE_OUTPUTS

    last = outputs.read_manifest(out)
    manifest = outputs.compact(out, rejects=rejects)
    before, after = len(last.parts), len((manifest or last).parts)
    if as_json:
        print_json({"parts_before": before, "parts_after": after})
    elif manifest is None:
        print(f"{location(out)}: no small parts to merge")
    else:
        beside = ""
        for key in SIDE_OUTPUTS:
            then, now = (len(of.named(key).parts) for of in (last, manifest))
            beside += f", {then} of {key} into {now}" if now < then else ""
        print(f"{location(out)}: merged {count(before, 'part')} into {after}{beside}")
