"""Models: Sequential, the functional Model, and how a pipeline runs them.

An encoder whose final state is the initial state of a decoder:

>>> import numpy as np
>>> from streamrnn import Input, Model, layers
>>> source, target = Input((None, 8)), Input((None, 3))
>>> _, h, c = layers.LSTM(16, return_state=True, name="encoder")(source)
>>> decoded = layers.LSTM(16, return_sequences=True, name="decoder")(target, initial_state=[h, c])
>>> model = Model([source, target], layers.Dense(3)(decoded))
>>> model([np.zeros((4, 20, 8)), np.zeros((4, 5, 3))]).shape
(4, 5, 3)

The same in two halves: the caller passes the state, for instance to decode one step at a time:

>>> encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
>>> _, *state = encoder(np.zeros((4, 20, 8)))
>>> decoder(np.zeros((4, 1, 3)), initial_state=state).shape
(4, 1, 16)

The uncertainty of a model, from 20 samples of its outputs under dropout:

>>> model = Model(source, layers.Dense(1)(layers.Dropout(0.2)(layers.LSTM(4)(source))))
>>> mean, deviation = model.predict(np.ones((4, 20, 8)), training=True, samples=20)
>>> mean.shape, deviation.shape
((4, 1), (4, 1))
"""

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
