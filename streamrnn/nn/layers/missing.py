"""Attributes of Keras's layers and models that this package lacks, with the reason for each."""

from inspect import getattr_static

from streamrnn.errors import ConfigError

WHY_MISSING = {
    "add_loss": "a loss depends on outputs alone; make what it needs an output of the model",
    "call": "call the object itself, as in layer(inputs)",
    "export": "save(path) writes a .safetensors file",
    "get_initial_state": "a cell has it, as in layer.cell.get_initial_state(batch_size)",
    "states": "get_state() returns the states of stateful layers",
    "train_step": "the step of training is compiled; see fit(), train_on_batch() and gradients()",
    "to_json": "get_config() returns the config",
}

_INTERNAL = """
adopt begin build_on cell_class check_arrays check_initial check_input children connect ensure_built
expect_features forward graph holders input_dtype input_specs is_built_in known_features
layer_shapes make_mask makes_mask memory nodes ragged regularization runner sequence_input
stateful_layers stepwise stream_classes stream_initial stream_states takes_state weights_changed
why_not_stepwise
"""
INTERNAL = frozenset(_INTERNAL.split())
"""Attributes for this package and for custom layers' classes; `dir(layer)` omits them."""


class _Missing:
    """An attribute that does not exist, with the reason.

    A `__getattr__` of the layers could say the same, but it made a call of a layer 15 % slower:
    with it, CPython does not specialize attribute access.
    """

    def __init__(self, name: str, why: str) -> None:
        self._name = name
        self._why = why

    def __get__(self, instance: object, owner: type) -> object:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self._name!r}: {self._why}",
            name=self._name,
            obj=instance,
        )


class _Unset:
    """An attribute that the constructor of a base class sets."""

    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        raise ConfigError(
            f"{owner.__name__}: its __init__ must call super().__init__() before it uses the object"
        )


def require_constructor(owner: type, *names: str) -> None:
    """Make an object of a class that lacks these attributes say that its base was not called."""
    for name in names:
        setattr(owner, name, _Unset())


def missing_in(owner: type) -> set[str]:
    """Return the names that exist in a class only to explain why they are missing."""
    return {name for name in WHY_MISSING if isinstance(getattr_static(owner, name), _Missing)}


def explain_missing(owner: type) -> None:
    """Make Keras's attributes that a class lacks raise AttributeError with a reason."""
    for name, why in WHY_MISSING.items():
        setattr(owner, name, _Missing(name, why))
