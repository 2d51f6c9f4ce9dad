"""Plug-ins by kind and name: entry points of the group `streamrnn.plugins`.

A plug-in adds a `callback`, a `command`, an `engine` and so on; the name of its entry point is the
kind, a dot and a name: `engine.ray`. No module imports a plug-in; it is loaded here on first use.
"""

import ast
import sys
from functools import cache
from glob import escape, iglob
from importlib import import_module
from importlib.util import find_spec
from os.path import basename, dirname, join
from typing import Any

from streamrnn.errors import UnsupportedError

__all__ = ["HOW_TO_INSTALL", "load_plugin", "plugin_names", "plugin_summary"]

HOW_TO_INSTALL = (
    "Plug-ins are found by the entry points of installed distributions. Install all of streamrnn: "
    "pip install --force-reinstall streamrnn, or in a checkout pip install -e ."
)
_GROUP = f"{__package__.partition('.')[0]}.plugins"


def plugin_names(kind: str) -> list[str]:
    """Return the names of all plug-ins of a kind, sorted, without importing them."""
    return sorted(
        name.removeprefix(f"{kind}.") for name in _targets() if name.startswith(f"{kind}.")
    )


def plugin_summary(kind: str, name: str) -> str | None:
    """Return the first line of the docstring of a plug-in's file; None if there is no file.

    The file is read, not imported. A file that is not Python has the summary "".
    """
    target = next(iter(_targets()[f"{kind}.{name}"].values()))
    try:
        spec = find_spec(target.partition(":")[0])
    except ModuleNotFoundError:  # the package of the file is missing
        return None
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None if spec is None else ""
    with open(str(spec.origin), encoding="utf-8") as file:
        return (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]


def load_plugin(kind: str, name: str) -> Any:
    """Return the object of a plug-in.

    Raises UnsupportedError if there is none or more than one, or if it fails to load. If a
    distribution is installed twice, the first on sys.path wins, as for its modules.
    """
    why = f"no entry point {kind}.{name} of {_GROUP}"
    targets = _targets().get(f"{kind}.{name}", {})
    if len({*targets.values()}) > 1:
        each = " and ".join(f"{target} of {owner}" for owner, target in targets.items())
        raise UnsupportedError(
            f"{kind} {name!r}: expected one plug-in, received {each}. "
            f"Uninstall all but one: pip uninstall {' or '.join(targets)}"
        )
    if target := next(iter(targets.values()), None):
        module, _, attribute = target.partition(":")
        try:
            loaded = import_module(module)
            return getattr(loaded, attribute) if attribute else loaded
        except Exception as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if not (missing and f"{module}.".startswith(f"{missing}.")):
                raise UnsupportedError(
                    f"{kind} {name!r}: its plug-in {target} cannot be loaded: "
                    f"{type(error).__name__}: {error}"
                ) from error
            why = str(error)
    raise UnsupportedError(
        f"{kind} {name!r}: its plug-in is not installed ({why}). {HOW_TO_INSTALL}"
    )


@cache
def _targets() -> dict[str, dict[str, str]]:
    """Return the targets of the group: entry point -> distribution -> module:object.

    importlib.metadata reads the same files, but importing it takes a tenth of the time of
    `streamrnn --help`.
    """
    targets: dict[str, dict[str, str]] = {}
    for folder in sys.path:
        for path in iglob(join(escape(folder), "*.dist-info", "entry_points.txt")):
            distribution = basename(dirname(path)).partition("-")[0]
            with open(path, encoding="utf-8", errors="replace") as file:
                _, _, group = file.read().partition(f"[{_GROUP}]\n")
            for line in group.partition("\n[")[0].splitlines():
                name, _, target = line.partition("=")
                if target:
                    targets.setdefault(name.strip(), {}).setdefault(distribution, target.strip())
    return targets
