"""Run a model on windows of streams: gather the state, run the model, scatter the state back."""

from streamrnn.operators.carry import CarryOperator
from streamrnn.operators.emit import Emitter, check_finite
from streamrnn.operators.independent import IndependentOperator
from streamrnn.operators.inputs import InputPlan, choose_inputs, feature_kinds, plan_inputs
from streamrnn.operators.kinds import KINDS, WindowKind
from streamrnn.operators.model_output import ModelOutput
from streamrnn.operators.whole import WholeOperator
from streamrnn.operators.window_size import WindowSize
from streamrnn.operators.workers import Workers

__all__ = [
    "KINDS",
    "CarryOperator",
    "Emitter",
    "IndependentOperator",
    "InputPlan",
    "ModelOutput",
    "WholeOperator",
    "WindowKind",
    "WindowSize",
    "Workers",
    "check_finite",
    "choose_inputs",
    "feature_kinds",
    "plan_inputs",
]
