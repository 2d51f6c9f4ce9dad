"""The arguments of layers, each declared once: an annotated name in the class, and its default.

``units: Size`` is a required argument, ``use_bias: bool = True`` has a default. `__init__`,
its signature and `get_config` follow from these declarations; type checkers read them, too (PEP
681). The order is as in dataclasses: the base's arguments first, and arguments below
``_: KW_ONLY`` after all others. As in Keras, these may be passed by position, too; only type
checkers require their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from inspect import Parameter, Signature
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
)

from streamrnn.errors import ArgumentError

C = TypeVar("C", bound=type[Any])
Given = TypeVar("Given", contravariant=True)
Kept = TypeVar("Kept", covariant=True)

_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    float | None: "a number or None",
}


class Argument(Generic[Given, Kept]):
    """An argument that is checked, or stored in another form than passed.

    init: False where a class itself sets an argument of its base. inner: whether the argument is a
    layer, or a list of layers.
    """

    in_config: ClassVar[bool] = True
    is_attribute: ClassVar[bool] = True
    type_name: ClassVar[str] = ""
    """The name that `help` shows for the union of the value's types."""

    def __init__(
        self, default: Any = Parameter.empty, init: bool = True, inner: bool = False
    ) -> None:
        self.default = default
        self.init, self.inner = init, inner
        self.annotation: Any = None

    def take(self, owner: object, name: str, value: Any) -> Any:
        """Return the form in which a value is stored. Raises ArgumentError."""
        expected = _EXPECTED.get(self.annotation)
        wrong = isinstance(value, str | list | tuple | dict)  # a model file may have anything
        if expected and (wrong or (value is None and self.annotation in (int, float))):
            raise ArgumentError(f"{owner}: {name} must be {expected}, received {value!r}")
        return value

    if TYPE_CHECKING:  # the types passed and stored; a layer has the value as a plain attribute

        def __get__(self, instance: object, owner: Any) -> Kept: ...
        def __set__(self, instance: object, value: Given) -> None: ...


class Accepted(Argument[Any, Any]):
    """An argument of Keras that is not in configs."""

    in_config = False


class _OfTraining(Argument[object, object]):
    """An argument for the constructor alone, such as a regularizer: see `Layer.regularization`."""

    in_config = is_attribute = False


_own: dict[type, dict[str, Argument[Any, Any] | type[KW_ONLY]]] = {}
_collected: dict[type, dict[str, Argument[Any, Any]]] = {}


@dataclass_transform(eq_default=False, field_specifiers=(Argument,))
def declared(cls: C) -> C:
    """Turn the annotated names in a class into arguments of layers (a class decorator)."""
    own = _own[cls] = {}
    for name, annotation in cls.__annotations__.items():
        if ClassVar in (annotation, get_origin(annotation)):
            continue
        if annotation is KW_ONLY:
            own[name] = KW_ONLY
            continue
        argument = vars(cls).get(name, Parameter.empty)
        if name in vars(cls):
            delattr(cls, name)  # only instances have the attribute
        if not isinstance(argument, Argument):
            kind: type[Argument[Any, Any]] = Argument
            if isinstance(annotation, InitVar):
                kind = _OfTraining
            elif isinstance(annotation, type) and issubclass(annotation, Argument):
                kind = annotation
            argument = kind(argument)
        argument.annotation = annotation
        own[name] = argument
    return cls


def arguments_of(cls: type) -> Mapping[str, Argument[Any, Any]]:
    """Return the arguments that a class and its bases declare, in Keras's order.

    `after`, a dictionary in a class, moves arguments: name -> the argument that it follows.
    """
    if cls in _collected:
        return _collected[cls]
    positional: dict[str, Argument[Any, Any]] = {}
    by_name: dict[str, Argument[Any, Any]] = {}
    after: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        after |= vars(base).get("after", {})
        target = positional
        for name, argument in _own.get(base, {}).items():
            if isinstance(argument, Argument):
                (positional if name in positional else target)[name] = argument
            else:
                target = by_name
    order = [*positional, *by_name]
    for name, other in after.items():
        if {name, other} <= {*order}:  # a base class may lack one of the two
            order.remove(name)
            order.insert(order.index(other) + 1, name)
    every = positional | by_name
    collected = _collected[cls] = {name: every[name] for name in order if every[name].init}
    return collected


def _by_position(cls: type) -> dict[str, Argument[Any, Any]]:
    """Return the arguments except the names in `among_kwargs`, which Keras takes in `kwargs`."""
    among = {name for base in cls.__mro__ for name in vars(base).get("among_kwargs", ())}
    return {name: each for name, each in arguments_of(cls).items() if name not in among}


def signature_of(cls: type) -> Signature:
    """Return the signature of a class that declares its arguments, for `help` and errors."""
    named = [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=each.default,
            annotation=_type_in_help(each.annotation),
        )
        for name, each in _by_position(cls).items()
    ]
    return Signature([*named, Parameter("kwargs", Parameter.VAR_KEYWORD)])


class _Name(str):
    """An annotation that is shown as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def _type_in_help(annotation: Any) -> Any:
    """Return the type of the values of an argument, for `help`."""
    if isinstance(annotation, InitVar):
        return annotation.type
    if name := getattr(annotation, "type_name", ""):
        return _Name(name)
    bases = getattr(annotation, "__orig_bases__", (annotation,))
    generic = annotation if get_origin(annotation) else bases[0]
    return get_args(generic)[0] if get_origin(generic) is Argument else annotation


def bound(cls: type, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, Any]:
    """Return the values of declared arguments, with defaults. Raises TypeError as a call does."""
    arguments, positional = arguments_of(cls), _by_position(cls)
    required = [name for name, each in arguments.items() if each.default is Parameter.empty]
    least, most = len(required) + 1, len(positional) + 1
    if len(args) >= most:
        raise TypeError(
            f"{cls.__name__}.__init__() takes "
            + (f"from {least} to {most}" if least < most else f"{most}")
            + f" positional arguments but {len(args) + 1} were given"
        )
    values = {name: each.default for name, each in arguments.items()}
    by_position = dict(zip(positional, args, strict=False))
    for name in by_position:
        if name in kwargs:
            raise TypeError(f"{cls.__name__}.__init__() got multiple values for argument {name!r}")
    values |= by_position | {name: kwargs[name] for name in arguments if name in kwargs}
    missing = [repr(name) for name in required if values[name] is Parameter.empty]
    if missing:
        raise TypeError(
            f"{cls.__name__}.__init__() missing {len(missing)} required positional "
            f"argument{'s' if len(missing) > 1 else ''}: {' and '.join(missing)}"
        )
    return values
