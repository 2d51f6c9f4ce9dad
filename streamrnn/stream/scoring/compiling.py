"""Compile the kernels of a pipeline before its first run, or while another pipeline runs."""

import json
import logging
import os
import subprocess
import sys

import numpy as np

from streamrnn.nn.kernels import Compiled, fill
from streamrnn.nn.models import example_inputs
from streamrnn.stream.config import Config, absolute_paths
from streamrnn.stream.scoring.bind import LoadedPipeline

_LOGGER = logging.getLogger("streamrnn.scoring")
_STREAMS = 2
_CODE = (
    f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import compile_stdin; compile_stdin()"
)


def compile_kernels(loaded: LoadedPipeline) -> Compiled:
    """Compile and cache every kernel that a run needs; no data is read.

    Raises ConfigError if no kernel can be cached.
    """
    return fill(lambda: _run_model(loaded))


def compile_beside(loaded: LoadedPipeline) -> None:
    """Compile missing kernels in another process, then load them; other threads are not blocked.

    If that process fails, as for layers that a script defines, the kernels are compiled here, with
    a warning.
    """
    config = json.dumps(absolute_paths(loaded.config, os.getcwd()))
    try:
        subprocess.run(
            [sys.executable, "-c", _CODE, *sys.path],
            input=config.encode(),
            check=True,
            capture_output=True,
            start_new_session=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        _LOGGER.warning("kernels are compiled in this process, and calls wait for them: %s", error)
    _run_model(loaded)


def compile_stdin() -> None:
    """Compile the kernels of the pipeline whose config comes through stdin, in a new process."""
    compile_kernels(LoadedPipeline(Config.parse(json.load(sys.stdin))))


def _run_model(loaded: LoadedPipeline) -> None:
    """Run the model once on a few streams, with the steps of a window, at least two.

    In kind carry, these are two steps.
    """
    steps = 2 if loaded.kind.carries_state else max(2, loaded.config.window.steps)
    inputs = example_inputs(loaded.model, _STREAMS, steps)
    lengths = np.full(_STREAMS, steps, np.int64)
    loaded.runner.run_once(inputs, lengths)
