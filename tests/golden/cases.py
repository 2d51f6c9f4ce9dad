"""What the golden values are of: layers as (class, arguments), for any library to build.

A case is a list of layers, called one after another. make_layers.py builds it with Keras and keeps
its input, weights and results; tests build it with streamrnn, or compute it with naive.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Spec = tuple[str, dict[str, Any]]
UNITS, VOCABULARY = 4, 9


@dataclass(frozen=True)
class Case:
    """Layers, and what the first is called with.

    inputs: "sequence" (B, T, F), "ids" (B, T) of 0 to 8, "padded" (B, T, F) with steps of zeros.
    mask, initial_state: call the only layer with them. initial: keep the weights that the
    initialisers made (constant ones) instead of random ones.
    """

    name: str
    layers: list[Spec]
    inputs: str = "sequence"
    mask: bool = False
    initial_state: bool = False
    initial: bool = False


def build(library: Any, spec: Spec) -> Any:
    """The layer of a spec, from a library's module `layers`; specs among the arguments too."""
    kind, arguments = spec
    return getattr(library, kind)(**{k: _built(library, v) for k, v in arguments.items()})


def _built(library: Any, value: Any) -> Any:
    if isinstance(value, tuple):
        return build(library, value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return [build(library, spec) for spec in value]
    return value


def _recurrent() -> list[Case]:
    kinds: dict[str, Spec] = {
        "lstm": ("LSTM", {}),
        "gru": ("GRU", {}),
        "gru_before": ("GRU", {"reset_after": False}),
        "rnn": ("SimpleRNN", {}),
        "stacked": (
            "RNN",
            {
                "cell": [
                    ("LSTMCell", {"units": UNITS}),
                    ("GRUCell", {"units": 3, "reset_after": False}),
                    ("SimpleRNNCell", {"units": UNITS}),
                ]
            },
        ),
    }
    cases = []
    for name, (kind, arguments) in kinds.items():
        own: dict[str, Any] = {**arguments} if kind == "RNN" else {"units": UNITS, **arguments}
        every = {**own, "return_sequences": True}
        states = {**every, "return_state": True}
        backwards = {**states, "go_backwards": True}
        cases += [
            Case(f"{name}/last", [(kind, own)]),
            Case(f"{name}/every", [(kind, every)]),
            Case(f"{name}/states", [(kind, {**own, "return_state": True})]),
            Case(f"{name}/backwards", [(kind, backwards)]),
            Case(f"{name}/unroll", [(kind, {**every, "unroll": True})]),
            Case(f"{name}/mask", [(kind, states)], mask=True),
            Case(f"{name}/mask_last", [(kind, {**own, "return_state": True})], mask=True),
            Case(f"{name}/mask_backwards", [(kind, backwards)], mask=True),
            Case(
                f"{name}/mask_zero", [(kind, {**states, "zero_output_for_mask": True})], mask=True
            ),
        ]
        if kind == "RNN":
            continue
        cases += [
            Case(f"{name}/from_state", [(kind, states)], initial_state=True),
            Case(f"{name}/mask_from_state", [(kind, states)], mask=True, initial_state=True),
            Case(f"{name}/no_bias", [(kind, {**every, "use_bias": False})]),
            Case(f"{name}/initial", [(kind, {**states, **CONSTANT})], initial=True),
        ]
        # Few of them: each pair of activations is a kernel of its own, and compiling takes seconds.
        other = {"activation": OTHER[name]}
        if kind == "SimpleRNN":
            cases.append(Case(f"{name}/activation", [(kind, {**every, **other})]))
            continue
        hard, soft = {"recurrent_activation": "hard_sigmoid"}, {"recurrent_activation": "softmax"}
        cases.append(Case(f"{name}/activations", [(kind, {**every, **other, **hard})]))
        cases.append(Case(f"{name}/softmax_gate", [(kind, {**every, **soft})]))
    arguments = {"units": UNITS, "return_sequences": True, "unit_forget_bias": False, **CONSTANT}
    cases.append(Case("lstm/initial_no_forget", [("LSTM", arguments)], initial=True))
    return cases


# Constant initialisers: the numbers do not hang on a library's random generator. The bias keeps
# its default (zeros, but ones in the LSTM's forget gate).
CONSTANT = {
    "kernel_initializer": ("Constant", {"value": 0.1}),
    "recurrent_initializer": ("Constant", {"value": -0.05}),
}
OTHER = {"lstm": "relu", "gru": "softsign", "gru_before": "linear", "rnn": "relu"}
ACTIVATIONS = [
    "linear",
    "tanh",
    "sigmoid",
    "relu",
    "relu6",
    "hard_sigmoid",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "silu",
    "gelu",
    "exponential",
    "mish",
    "leaky_relu",
    "softmax",
]


def _bidirectional() -> list[Case]:
    cases = []
    for kind, mode in [
        ("LSTM", "concat"),
        ("GRU", "sum"),
        ("SimpleRNN", "mul"),
        ("GRU", "ave"),
        ("LSTM", None),
    ]:
        every = (kind, {"units": UNITS, "return_sequences": True, "return_state": True})
        last = (kind, {"units": UNITS})
        name = f"bidirectional/{kind.lower()}_{mode}"
        wrap = {"merge_mode": mode}
        cases += [
            Case(f"{name}/every", [("Bidirectional", {"layer": every, **wrap})]),
            Case(f"{name}/last", [("Bidirectional", {"layer": last, **wrap})]),
            Case(f"{name}/mask", [("Bidirectional", {"layer": every, **wrap})], mask=True),
            Case(f"{name}/mask_last", [("Bidirectional", {"layer": last, **wrap})], mask=True),
        ]
    return cases


def _timewise() -> list[Case]:
    mean, variance = [0.5, -1.0, 2.0], [4.0, 0.25, 0.0]
    norm = ("Normalization", {"mean": mean, "variance": variance})
    conv = {"filters": UNITS, "kernel_size": 3, "padding": "causal"}
    cases = [
        Case("dense/no_bias", [("Dense", {"units": UNITS, "use_bias": False})]),
        Case("dense/initial", [("Dense", {"units": 2, **_of(CONSTANT)})], initial=True),
        Case("embedding", [("Embedding", {"input_dim": VOCABULARY, "output_dim": 4})], "ids"),
        Case("normalization/given", [norm]),
        Case("normalization/weights", [("Normalization", {})]),
        Case("rescaling", [("Rescaling", {"scale": 2.5, "offset": -1.0})]),
        Case("rescaling/features", [("Rescaling", {"scale": mean, "offset": variance})]),
        Case("dropout", [("Dropout", {"rate": 0.5})]),
        Case("time_distributed", [("TimeDistributed", {"layer": ("Dense", {"units": 2})})]),
        Case("layer_normalization", [("LayerNormalization", {})]),
        Case(
            "layer_normalization/plain", [("LayerNormalization", {"center": False, "scale": False})]
        ),
        Case("batch_normalization", [("BatchNormalization", {"epsilon": 0.01})]),
        Case("conv1d", [("Conv1D", conv)]),
        Case("conv1d/dilated", [("Conv1D", {**conv, "dilation_rate": 2, "activation": "relu"})]),
        Case("relu", [("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2})]),
        Case("leaky_relu", [("LeakyReLU", {})]),
        Case("elu", [("ELU", {"alpha": 0.5})]),
        Case("prelu", [("PReLU", {"shared_axes": [1]})]),
        Case("softmax", [("Softmax", {})]),
    ]
    for name in ACTIVATIONS:
        cases.append(Case(f"activation/{name}", [("Activation", {"activation": name})]))
        cases.append(Case(f"dense/{name}", [("Dense", {"units": UNITS, "activation": name})]))
    return cases


def _of(constant: dict[str, Any]) -> dict[str, Any]:
    return {"kernel_initializer": constant["kernel_initializer"]}


def _stacks() -> list[Case]:
    every = {"units": UNITS, "return_sequences": True}
    zero_is_mask = {"input_dim": VOCABULARY, "output_dim": 4, "mask_zero": True}
    return [
        Case(
            "sequential/weather",
            [
                ("Normalization", {}),
                ("GRU", every),
                ("Dropout", {"rate": 0.2}),
                ("Dense", {"units": 1}),
                ("Rescaling", {"scale": 18.0, "offset": 55.0}),
            ],
        ),
        Case(
            "sequential/three",
            [
                ("LSTM", every),
                ("GRU", {**every, "reset_after": False}),
                ("SimpleRNN", {"units": UNITS}),
                ("Dense", {"units": 3, "activation": "softmax"}),
            ],
        ),
        Case(
            "sequential/ids",
            [("Embedding", zero_is_mask), ("LSTM", {"units": UNITS}), ("Dense", {"units": 2})],
            "ids",
        ),
        Case(
            "sequential/mask_passes_on",
            [("Embedding", zero_is_mask), ("GRU", every), ("LSTM", every), ("Dense", {"units": 2})],
            "ids",
        ),
        Case(
            "sequential/masking",
            [("Masking", {}), ("LSTM", every), ("Activation", {"activation": "relu"})],
            "padded",
        ),
        Case(
            "sequential/bidirectional",
            [
                ("Masking", {}),
                ("Bidirectional", {"layer": ("LSTM", every)}),
                ("Bidirectional", {"layer": ("LSTM", {"units": 2})}),
            ],
            "padded",
        ),
    ]


CASES = [*_recurrent(), *_bidirectional(), *_timewise(), *_stacks()]


@cache
def _golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("layers.npz")) as file:
        return dict(file)


def inputs_of(case: Case) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray] | None]:
    """What a case is called with: x, mask or None, initial states or None."""
    golden = _golden()
    states = None
    if case.initial_state:
        states = [golden["input:s0"], golden["input:s1"]][: 2 if "LSTM" in case.layers[0] else 1]
    return golden[f"input:{case.inputs}"], golden["input:mask"] if case.mask else None, states


def weights_of(case: Case) -> list[np.ndarray]:
    """The weights of a case, in the order of get_weights()."""
    return _numbered(f"{case.name}:w")


def results_of(case: Case) -> list[np.ndarray]:
    """What Keras gave, flattened."""
    return _numbered(f"{case.name}:y")


def _numbered(prefix: str) -> list[np.ndarray]:
    golden, arrays = _golden(), []
    while f"{prefix}{len(arrays)}" in golden:
        arrays.append(golden[f"{prefix}{len(arrays)}"])
    return arrays


def flat(result: Any) -> list[Any]:
    """A result, nested as a layer returns it, as a list of arrays."""
    if isinstance(result, list | tuple):
        return [array for part in result for array in flat(part)]
    return [result]
