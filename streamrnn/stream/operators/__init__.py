"""Run a model on windows of streams: gather the state, run the model, scatter the state back.

To add a kind of window, write a module with a `WindowKind` and list it here.
"""

from streamrnn.stream.operators.carry import CarryOperator
from streamrnn.stream.operators.emit import Emitter, all_finite, check_finite
from streamrnn.stream.operators.independent import IndependentOperator
from streamrnn.stream.operators.whole import WholeOperator
from streamrnn.stream.operators.window_kind import (
    InputPlan,
    ModelOutput,
    WindowKind,
    WindowSize,
    choose_inputs,
    feature_kinds,
    plan_inputs,
)
from streamrnn.stream.operators.workers import Workers

_KINDS: tuple[type[WindowKind], ...] = (CarryOperator, IndependentOperator, WholeOperator)
KINDS = {kind.name: kind for kind in _KINDS}
"""Kinds of window by their names in the pipeline file."""
