"""`streamrnn verify`, `rewind` and `compact`: an output folder and its commits."""

from dataclasses import asdict
from typing import Annotated

import typer

from streamrnn.cli.report import Json, Verbose, count, print_json, print_table

Output = Annotated[str, typer.Argument(metavar="OUT", help="The output folder of a run.")]
Rejects = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The directory of its rejects, if moved."),
]


def verify(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Check an output. Every committed file is read and compared with its checksum."""
    from streamrnn import outputs

    found = outputs.verify(out, rejects=rejects)
    if as_json:
        print_json(asdict(found))
    else:
        rejected = f", {count(found.rejected, 'reject')}" if found.rejected else ""
        print(
            f"{out} is intact: commit {found.commit}, {count(found.parts, 'part')} with "
            f"{count(found.rows, 'row')}{rejected}, state of {count(found.state_rows, 'stream')}, "
            f"{found.bytes / 1e6:,.1f} MB"
        )


def rewind(
    out: Output,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", help="The commit to return to.")
    ] = None,
    rejects: Rejects = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the kept commits, or return to one. --to N drops all rows after commit N."""
    from streamrnn import outputs

    if to is not None:
        manifest = outputs.rewind(out, to, rejects=rejects)
        if as_json:
            print_json({"commit": manifest.commit, "rows": manifest.rows})
        else:
            print(
                f"{out} is back at commit {to}: {count(manifest.rows, 'row')}, state of "
                f"{count(manifest.state_rows, 'stream')}; the next run resumes from there"
            )
        return
    commits = [
        {
            "commit": kept.commit,
            "time": kept.time,
            "rows": kept.rows,
            "rejected": kept.rejected,
            "streams": kept.state_rows,
            "files": kept.sources,
            "complete": kept.complete,
        }
        for kept in outputs.history(out)
    ]
    if as_json:
        print_json(commits)
        return
    print_table(list(commits[0]), [commit.values() for commit in commits])
    if len(commits) > 1:
        print(f"\nthe last one is current; return to another with: streamrnn rewind {out} --to N")
    else:
        print("\nonly the current commit is kept; [checkpoint] keep sets how many older ones are")


def compact(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Merge small parts into larger ones. Rows, their order and the state do not change."""
    from streamrnn import outputs

    before = len(outputs.read_manifest(out).parts)
    manifest = outputs.compact(out, rejects=rejects)
    after = before if manifest is None else len(manifest.parts)
    if as_json:
        print_json({"parts_before": before, "parts_after": after})
    elif manifest is None:
        print(f"{out}: no small parts to merge")
    else:
        print(f"{out}: merged {count(before, 'part')} into {after}")
