"""Models: Sequential, the functional Model, and how a pipeline runs them."""

from streamrnn.base.provider import provided
from streamrnn.nn.models.eager import Eager
from streamrnn.nn.models.model import Model
from streamrnn.nn.models.runners import (
    SequenceRunner,
    StepPlan,
    StepRunner,
    example_inputs,
)
from streamrnn.nn.models.sequential import Sequential
from streamrnn.nn.models.steps import has_no_features
from streamrnn.nn.models.summary import Call, calls_of, model_mermaid

_WHY_MISSING = {
    "clone_model": "use Model.from_config(model.get_config())",
    "model_from_config": "use Model.from_config(config)",
    "model_from_json": "use Model.from_config(json.loads(text)['config'])",
    "save_model": "use model.save(path)",
}


def __getattr__(name: str) -> object:
    if name == "load_model":
        return provided("load_model")
    why = _WHY_MISSING.get(name)
    raise AttributeError(
        f"streamrnn.models has no {name!r}" + (f": {why}" if why else ""), name=name
    )


__all__ = [
    "Call", "Eager", "Model", "SequenceRunner", "Sequential", "StepPlan", "StepRunner", "calls_of",
    "example_inputs", "has_no_features", "model_mermaid",
]  # fmt: skip
