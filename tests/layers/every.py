"""One of every layer that reads sequences of four features, with options that are not defaults."""

from collections.abc import Callable

from streamrnn import initializers, layers

_MAKERS: list[Callable[[], layers.Layer]] = [
    lambda: layers.SimpleRNN(3, activation="relu", use_bias=False, go_backwards=True),
    lambda: layers.GRU(
        3, reset_after=False, recurrent_activation="hard_sigmoid", dropout=0.1, seed=4
    ),
    lambda: layers.LSTM(
        3, unit_forget_bias=False, return_sequences=True, return_state=True, stateful=True
    ),
    lambda: layers.RNN(
        [layers.LSTMCell(3), layers.GRUCell(2)], zero_output_for_mask=True, unroll=True
    ),
    lambda: layers.RNN(layers.SimpleRNNCell(3, recurrent_dropout=0.2)),
    lambda: layers.Bidirectional(
        layers.GRU(3), merge_mode="sum", backward_layer=layers.SimpleRNN(3, go_backwards=True)
    ),
    lambda: layers.TimeDistributed(layers.Dense(2, activation="softmax")),
    lambda: layers.Dense(2, use_bias=False, kernel_initializer=initializers.Constant(0.5)),
    lambda: layers.Dropout(0.5, noise_shape=(None, 1, None), seed=3),
    lambda: layers.SpatialDropout1D(0.5, seed=3),
    lambda: layers.ActivityRegularization(0.1, 0.2),
    lambda: layers.Masking(2.0),
    lambda: layers.Activation("swish"),
    lambda: layers.ReLU(6.0, 0.1, 0.2),
    lambda: layers.LeakyReLU(0.2),
    lambda: layers.ELU(0.5),
    lambda: layers.PReLU("random_normal", shared_axes=[1]),
    lambda: layers.Softmax(),
    lambda: layers.Normalization(mean=[1, 2, 3, 4], variance=[1, 2, 3, 4]),
    lambda: layers.Normalization(invert=True),
    lambda: layers.Rescaling([1, 2, 3, 4], 0.5),
    lambda: layers.LayerNormalization(epsilon=0.01, center=False),
    lambda: layers.BatchNormalization(momentum=0.9, scale=False),
    lambda: layers.Conv1D(
        2, 3, padding="causal", dilation_rate=2, activation="tanh", use_bias=False
    ),
    lambda: layers.Flatten(),
    lambda: layers.Reshape((4, 6)),
]

EVERY = {f"{i}-{type(make()).__name__}": make for i, make in enumerate(_MAKERS)}
