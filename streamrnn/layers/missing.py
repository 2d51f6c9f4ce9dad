"""Names of Keras's layers and models that this package does not have, with the reason for each."""

_TRAINING = "training is not supported; train in Keras, save the model, and load the file"
_WEIGHTS = "see weights, named_weights(), get_weights() and set_weights()"

WHY_MISSING = {
    **dict.fromkeys(
        (
            "compile",
            "evaluate",
            "fit",
            "loss",
            "metrics",
            "optimizer",
            "test_on_batch",
            "train_on_batch",
            "train_step",
        ),
        _TRAINING,
    ),
    **dict.fromkeys(
        (
            "non_trainable_variables",
            "non_trainable_weights",
            "trainable_variables",
            "trainable_weights",
            "variables",
        ),
        _WEIGHTS,
    ),
    "call": "call the object itself, as in layer(inputs)",
    "export": "save(path) writes a .safetensors file",
    "get_initial_state": "a cell has it, as in layer.cell.get_initial_state(batch_size)",
    "predict_on_batch": "call predict(x)",
    "save_weights": "save(path) writes config and weights to a .safetensors file",
    "states": "get_state() returns the states of stateful layers",
    "to_json": "get_config() returns the config",
}

INTERNAL = frozenset({
    "cell_class",
    "check_arrays",
    "check_initial",
    "check_input",
    "children",
    "connect",
    "ensure_built",
    "expect_features",
    "forward",
    "graph",
    "input_dtype",
    "input_specs",
    "known_features",
    "layer_shapes",
    "make_mask",
    "makes_mask",
    "memory",
    "nodes",
    "ragged",
    "runner",
    "sequence_input",
    "stepwise",
    "stream_initial",
    "stream_states",
    "takes_state",
    "weights_changed",
    "why_not_stepwise",
})  # fmt: skip
"""Attributes that serve this package, and classes of custom layers; `dir(layer)` omits them."""
