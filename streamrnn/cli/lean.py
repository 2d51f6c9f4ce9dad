"""Startup of the command: standard streams, no pandas, imported modules not garbage-collected."""

import atexit
import gc
import os
import sys

_OBJECTS = 300_000
"""More objects than the imports of a run create."""


class _WithoutPandas:
    """A finder that hides pandas.

    pyarrow imports pandas, if installed, at the first `pa.array`, `pa.scalar` (also where a compute
    function gets a Python value) or `to_numpy`; no option prevents it. The import takes 0.4 s of
    each start, and the command never uses pandas.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the streamrnn command runs without pandas", name="pandas")


def run_without_pandas() -> None:
    """Prevent any import of pandas in this process from now on."""
    sys.meta_path.insert(0, _WithoutPandas())


def collect_rarely() -> None:
    """Keep the garbage collector of this process from traversing imported modules, now and at exit.

    Traversing them takes a third of a short run. Record batches and the steps of a fit leave no
    cycles.
    """
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)


def fill_closed_streams() -> None:
    """Open the null device for standard streams that the caller closed (`2>&-`).

    Else the next file that is opened would take its number, and get what libraries print. Python's
    own stdout stays None, so that rows are not lost there without an error.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)  # processes that this one starts have them, too
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open until the process ends
    if sys.stderr is None:  # with the errors of Python's own, which can print any name
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
