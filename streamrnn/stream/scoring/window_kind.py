"""The kind of window where the pipeline file says nothing, for a model of fixed steps."""

from collections.abc import Callable
from dataclasses import dataclass

from streamrnn.errors import ModelMismatchError
from streamrnn.nn.models import Model, StepRunner
from streamrnn.stream.config import Config, both_answers, use_of


@dataclass(frozen=True)
class KindChoice:
    """The kind of window that is used, and why.

    `note` compares it with the steps of the model's inputs; None if these are not fixed. `kept`:
    nothing says the kind, but the output began in it.
    """

    why: str
    note: str | None = None
    kept: bool = False


def choose_kind(config: Config, model: Model, begun: Callable[[], bool]) -> KindChoice:
    """Return why [window] kind is what it is; `begun` tells whether its output has commits.

    A model whose inputs have a fixed number of steps was trained on windows, or on sequences that
    were cut, and the file does not tell which. Raises ModelMismatchError with both answers if the
    config does not, and the output has not begun.
    """
    steps, window = model.declared_steps, config.window
    said = "kind" in window.model_fields_set
    if steps is None:
        return KindChoice("set by [window] kind" if said else "the default")
    if not said and not begun():
        raise unsaid_kind(model)
    use = use_of(window, steps)
    note = f"the model's inputs have {steps} steps, and kind is {window.kind}: {use}"
    if said:
        return KindChoice("set by [window] kind", note)
    return KindChoice(
        "the output began in it, and [window] kind is not set",
        f"{note}. Nothing sets [window] kind: the output goes on as it began. Add kind = "
        f'"{window.kind}" to the pipeline file, or see in `streamrnn guide keras-model` whether '
        "another kind is meant",
        kept=True,
    )


def unsaid_kind(model: Model) -> ModelMismatchError:
    """Return the error of a model of fixed steps for which nothing says the kind of window."""
    steps = model.declared_steps
    assert steps is not None
    return ModelMismatchError(
        "[window] kind: required for this model, as its inputs have a fixed number of steps, "
        f"{steps}. Set one of these:\n{both_answers(steps, _why_not_carried(model))}"
    )


def _why_not_carried(model: Model) -> str | None:
    try:
        StepRunner(model)
    except ModelMismatchError as error:
        return str(error)
    return None
