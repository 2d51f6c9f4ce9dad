"""The base of the tables of a pipeline file, and how their keys are declared."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from streamrnn.base.display import location


class Section(BaseModel):
    """A frozen table that refuses unknown keys and converts no value silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, location(value) if isinstance(value, str) else value


def setting(
    help: str,
    default: Any = None,
    *,
    factory: Callable[..., Any] | None = None,
    alias: str | None = None,
    example: Any = None,
) -> Any:
    """Declare a key of a table by its line of help; with the default `...` it is required.

    `factory`, if set, makes the default, and may use the values of the keys before this one. The
    sample of `streamrnn init` shows the `example`.
    """
    examples = None if example is None else [example]
    if factory is not None:
        return Field(default_factory=factory, alias=alias, description=help, examples=examples)
    return Field(default, alias=alias, description=help, examples=examples)
