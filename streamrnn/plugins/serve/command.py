"""Answer requests over HTTP from the state of an output."""

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from streamrnn.cli.guide import EXIT_CODES, example
from streamrnn.cli.report import Quiet, Set, Verbose
from streamrnn.errors import UnsupportedError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("serve", epilog=f"{example('serve pipeline.toml', 'serve')}\n\n{EXIT_CODES}")
def serve(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline file (TOML).")],
    overrides: Set = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    behind_proxy: Annotated[
        bool,
        typer.Option(
            "--behind-proxy",
            help="Allow an address that other machines reach, and requests of pages in browsers; "
            "a proxy must guard the server.",
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score rows of requests, each with its stream's state; POST /score takes and returns JSON.

    Rows and state are committed to the output of `run`: a run resumes where the server stopped, and
    the server where the run did.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not (behind_proxy or is_loopback):
        raise typer.BadParameter(
            f"--host {host}: other machines could reach the server, which has neither TLS nor "
            "passwords. Listen on 127.0.0.1 behind a proxy that has both, or add --behind-proxy if "
            "the proxy is on another machine or in another container"
        )
    try:
        from streamrnn.plugins.serve.server import Server
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"streamrnn serve needs {error.name}: pip install 'streamrnn[serve]'"
        ) from error
    from streamrnn.jobs.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    name, port = Path(pipeline).stem, job.config.serve.port
    Server(job, name, host, port, behind_proxy=behind_proxy).run()
