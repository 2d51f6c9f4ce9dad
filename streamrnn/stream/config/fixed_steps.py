"""The settings of [window] for a model whose inputs have a fixed number of steps."""

from streamrnn.stream.config.schema import WindowSection


def windows_of_predict(steps: int) -> dict[str, str | int]:
    """Return the keys of [window] with which each row gets the output of predict."""
    return {"kind": "independent", "steps": steps, "stride": 1}


def both_answers(steps: int, not_carried: str | None) -> str:
    """Describe the kinds that can be set; `not_carried`: why carry is not one (None: it is)."""
    carry = 'kind = "carry"'
    if not_carried is not None:
        carry += f" is not possible: {not_carried}"
    else:
        carry += (
            ": the state goes on from row to row, for a model trained that way; after training on "
            "windows its scores differ from what predict gives"
        )
    return (
        f'  kind = "independent", steps = {steps}, stride = 1: what predict gives. Each row is '
        f"scored from zero by the {steps} rows that end with it; the first {steps - 1} rows of a "
        f"stream have no score\n  {carry}"
    )


def use_of(window: WindowSection, steps: int) -> str:
    """Describe what the kind of window means for a model of `steps` steps."""
    if window.kind == "carry":
        return "the state goes on from row to row, beyond the windows that predict reads"
    if window.kind == "whole":
        return "each stream is one sequence, of any length"
    if window.steps != steps:
        return f"windows have {window.steps} steps"
    return f"each window of {steps} rows starts from zero, as in predict"
