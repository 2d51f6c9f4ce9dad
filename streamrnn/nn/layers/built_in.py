"""BuiltIn, the base of the package's layers, which declare their arguments."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from streamrnn.errors import ConfigError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.declared import arguments_of, bound, declared, signature_of
from streamrnn.nn.layers.layer import Layer, layers_in
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig, is_own
from streamrnn.nn.layers.structure import map_lists


class _Signature:
    """The signature of a class, from its declared arguments; None if it has its own `__init__`."""

    def __get__(self, instance: object, owner: type["BuiltIn"]) -> inspect.Signature | None:
        if instance is not None:
            raise AttributeError("__signature__")
        return signature_of(owner) if owner.__init__ is BuiltIn.__init__ else None


@declared
class BuiltIn(Layer):
    """A layer of this package: its arguments are the annotated names in its class and bases.

    For `name`, `trainable`, `dtype`, shapes, regularizers and constraints see Layer.
    """

    __signature__ = _Signature()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        definer = next(base for base in cls.__mro__ if "apply" in vars(base))
        if hasattr(cls, "call") and is_own(definer) and not is_own(cls):
            base = next(base for base in cls.__mro__ if is_own(base))
            raise ConfigError(
                f"{cls.__name__}: {base.__name__} does not run the `call` of a subclass: override "
                "apply(inputs, context), which may call super().apply(inputs, context), or derive "
                "the class from Layer"
            )

    if TYPE_CHECKING:  # Layer.__init__ takes them
        _: KW_ONLY
        name: InitVar[str | None] = None
        trainable: InitVar[bool] = True
        dtype: InitVar[object] = None
        input_shape: InitVar[Sequence[int | None] | None] = None
        batch_input_shape: InitVar[Sequence[int | None] | None] = None
        activity_regularizer: InitVar[object] = None
        alpha_constraint: InitVar[object] = None
        alpha_regularizer: InitVar[object] = None
        beta_constraint: InitVar[object] = None
        beta_regularizer: InitVar[object] = None
        bias_constraint: InitVar[object] = None
        bias_regularizer: InitVar[object] = None
        depthwise_constraint: InitVar[object] = None
        depthwise_regularizer: InitVar[object] = None
        embeddings_constraint: InitVar[object] = None
        embeddings_regularizer: InitVar[object] = None
        gamma_constraint: InitVar[object] = None
        gamma_regularizer: InitVar[object] = None
        kernel_constraint: InitVar[object] = None
        kernel_regularizer: InitVar[object] = None
        pointwise_constraint: InitVar[object] = None
        pointwise_regularizer: InitVar[object] = None
        # Refused, unless they have no effect.
        autocast: InitVar[object] = None
        lora_rank: InitVar[object] = None
        quantization_config: InitVar[object] = None
        ragged: InitVar[object] = None
        sparse: InitVar[object] = None
        time_major: InitVar[object] = None
        use_cudnn: InitVar[object] = None
        weights: InitVar[object] = None

    def __init__(self, *args: object, **kwargs: object) -> None:
        values = bound(type(self), args, kwargs)
        options: dict[str, Any] = {k: v for k, v in kwargs.items() if k not in values}
        super().__init__(**options)
        for name, value in values.items():
            if isinstance(value, np.generic):
                values[name] = value.item()
        self.set_arguments(values)

    def set_arguments(self, values: dict[str, Any]) -> None:
        """Check the values of declared arguments, and set them as attributes of the same names."""
        arguments = arguments_of(type(self))
        for name, value in values.items():
            if arguments[name].is_attribute:
                setattr(self, name, arguments[name].take(self, name, value))
        self.complete()

    def complete(self) -> None:
        """Check declared arguments together, and set what follows from these arguments alone."""

    def children(self) -> dict[str, Layer]:
        """Return the layers that are arguments; of a user's class, those in all attributes."""
        if not self.is_built_in():
            return super().children()
        names = [name for name, argument in arguments_of(type(self)).items() if argument.inner]
        return dict(pair for name in names for pair in layers_in(name, getattr(self, name)))

    def get_config(self) -> ConfigDict:
        config = super().get_config()
        for name, argument in arguments_of(type(self)).items():
            if argument.inner:
                config[name] = map_lists(registry.serialize, config[name])
        return config

    @classmethod
    def from_config(cls, config: StoredConfig) -> Self:
        arguments: dict[str, Any] = dict(config)
        for name, argument in arguments_of(cls).items():
            if argument.inner and name in config:
                arguments[name] = _layers_of(config[name])
        return cls(**arguments)


def _layers_of(value: object) -> object:
    """Build the layer of a config, or of each in a list; return other values unchanged."""
    if isinstance(value, list | tuple):
        return [_layers_of(item) for item in value]
    return registry.deserialize(value) if isinstance(value, Mapping) else value


class Stepwise(BuiltIn):
    """The base of layers whose output at a step depends on that step alone."""

    stepwise = True


class Unmasked(BuiltIn):
    """The base of layers that pass no mask on, as in Keras."""

    supports_masking = False

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None."""
