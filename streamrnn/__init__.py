"""Score logs of many streams with recurrent models that carry their state.

Names load on first use (PEP 562): `import streamrnn` is cheap, and layers do not need Arrow.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamrnn.base.provider import provide

if TYPE_CHECKING:
    from streamrnn import (
        activations,
        callbacks,
        errors,
        initializers,
        layers,
        losses,
        metrics,
        models,
        ops,
        optimizers,
        outputs,
        regularizers,
        states,
        utils,
    )
    from streamrnn.layers import Input, clear_session, register_layer
    from streamrnn.models import Model, Sequential, load_model
    from streamrnn.nn.kernels import get_threads, set_threads
    from streamrnn.pipeline import Pipeline
    from streamrnn.states import StateTable

__version__ = "0.1.0"

_HOME = {
    "Input": "streamrnn.layers",
    "Model": "streamrnn.models",
    "Pipeline": "streamrnn.pipeline",
    "Sequential": "streamrnn.models",
    "StateTable": "streamrnn.states",
    "clear_session": "streamrnn.layers",
    "get_threads": "streamrnn.nn.kernels",
    "load_model": "streamrnn.models",
    "register_layer": "streamrnn.layers",
    "set_threads": "streamrnn.nn.kernels",
}
# Models save, load and train through these names, without importing the rooms behind them.
_FOR_MODELS = {
    "Eager": "streamrnn.nn.models",
    "Trainer": "streamrnn.nn.training",
    "evaluate_arrays": "streamrnn.nn.training",
    "fit_arrays": "streamrnn.nn.training",
    "load_model": "streamrnn.nn.formats",
    "load_weights": "streamrnn.nn.formats",
    "save": "streamrnn.nn.formats.native",
}
_WHY_MISSING = {"backend": "arrays are NumPy's, in float32"}

__all__ = [
    "Input",
    "Model",
    "Pipeline",
    "Sequential",
    "StateTable",
    "__version__",
    "activations",
    "callbacks",
    "clear_session",
    "errors",
    "get_threads",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "outputs",
    "register_layer",
    "regularizers",
    "set_threads",
    "states",
    "utils",
]


def _load(name: str, module: str) -> Any:
    return getattr(import_module(module), name)


for _name, _module in _FOR_MODELS.items():
    provide(_name, partial(_load, _name, _module))


if not TYPE_CHECKING:  # so that a type checker reports misspelled names

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            loaded = {name: _load(name, _HOME[name])}
            import_module("streamrnn.base.display").show_in(__name__, loaded)
            return loaded[name]
        if name in __all__:
            return import_module(f"streamrnn.{name}")
        why = _WHY_MISSING.get(name) or _did_you_mean(name)
        raise AttributeError(
            f"module 'streamrnn' has no attribute {name!r}" + (f": {why}" if why else ""), name=name
        )


def _did_you_mean(name: str) -> str | None:
    if name.startswith("_"):  # looked up by tools, which expect it to be missing
        return None
    near = import_module("streamrnn.base.display").closest(name, __all__)
    return f"did you mean {near!r}?" if near else None


def __dir__() -> list[str]:
    return __all__
