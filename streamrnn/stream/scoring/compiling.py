"""Compile the kernels of a pipeline before its first run, or beside one that goes on."""

import logging
import pickle
import subprocess
import sys

import numpy as np

from streamrnn.nn.kernels import Compiled, fill
from streamrnn.nn.models import example_inputs
from streamrnn.stream.scoring.bind import LoadedPipeline

_LOGGER = logging.getLogger("streamrnn.pipeline")
_NOT_PICKLED = pickle.PicklingError, AttributeError, TypeError
_STREAMS = 2
_CODE = (
    "import pickle, sys; sys.path[:] = sys.argv[1:]; "
    "from streamrnn.stream.scoring import compile_kernels; "
    "compile_kernels(pickle.load(sys.stdin.buffer))"
)


def compile_kernels(loaded: LoadedPipeline) -> Compiled:
    """Compile and cache every kernel that a run of this pipeline needs. No data is read.

    Raises ConfigError if no kernel can be cached.
    """
    return fill(lambda: _run_model(loaded))


def compile_beside(loaded: LoadedPipeline) -> None:
    """Compile in another process what this one lacks, and load it; other threads go on meanwhile.

    What cannot be compiled there, such as the layers of a script, is compiled here, with a warning.
    """
    try:
        subprocess.run(
            [sys.executable, "-c", _CODE, *sys.path],
            input=pickle.dumps(loaded.for_worker()),
            check=True,
            capture_output=True,
            start_new_session=True,
        )
    except (subprocess.SubprocessError, OSError, *_NOT_PICKLED) as error:
        _LOGGER.warning("kernels are compiled in this process, and calls wait for them: %s", error)
    _run_model(loaded)


def _run_model(loaded: LoadedPipeline) -> None:
    """Run the model once on a few streams, with the steps of a window (kind carry: two)."""
    steps = 2 if loaded.kind.carries_state else max(2, loaded.config.window.steps)
    inputs = example_inputs(loaded.model, _STREAMS, steps)
    lengths = np.full(_STREAMS, steps, np.int64)
    loaded.runner.run_once(inputs, lengths)
