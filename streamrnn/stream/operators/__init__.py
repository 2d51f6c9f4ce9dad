"""Run a model on windows of streams: gather the state, run the model, scatter the state back."""

from streamrnn.stream.operators.carry import CarryOperator
from streamrnn.stream.operators.emit import Emitter, all_finite, check_finite
from streamrnn.stream.operators.independent import IndependentOperator
from streamrnn.stream.operators.inputs import InputPlan, choose_inputs, feature_kinds, plan_inputs
from streamrnn.stream.operators.kinds import KINDS, WindowKind
from streamrnn.stream.operators.model_output import ModelOutput
from streamrnn.stream.operators.window_size import WindowSize
from streamrnn.stream.operators.workers import Workers

__all__ = [
    "KINDS",
    "CarryOperator",
    "Emitter",
    "IndependentOperator",
    "InputPlan",
    "ModelOutput",
    "WindowKind",
    "WindowSize",
    "Workers",
    "all_finite",
    "check_finite",
    "choose_inputs",
    "feature_kinds",
    "plan_inputs",
]
