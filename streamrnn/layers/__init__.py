"""Layers and cells: Keras's names, arguments and weight layouts, in float32 NumPy arrays."""

from streamrnn.layers import activations, initializers
from streamrnn.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from streamrnn.layers.cell import Cell
from streamrnn.layers.dense import Dense
from streamrnn.layers.dropout import ActivityRegularization, Dropout, SpatialDropout1D
from streamrnn.layers.embedding import Embedding
from streamrnn.layers.gru import GRU, GRUCell
from streamrnn.layers.input import Input, InputLayer
from streamrnn.layers.layer import ArgumentError, Layer
from streamrnn.layers.lstm import LSTM, LSTMCell
from streamrnn.layers.naming import clear_session
from streamrnn.layers.registry import deserialize, get, register_layer, serialize
from streamrnn.layers.rnn import RNN
from streamrnn.layers.scaling import Normalization, Rescaling
from streamrnn.layers.simple_rnn import SimpleRNN, SimpleRNNCell
from streamrnn.layers.stacked import StackedRNNCells

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "ActivityRegularization",
    "ArgumentError",
    "Cell",
    "Dense",
    "Dropout",
    "Embedding",
    "GRUCell",
    "Input",
    "InputLayer",
    "LSTMCell",
    "Layer",
    "LeakyReLU",
    "Normalization",
    "PReLU",
    "ReLU",
    "Rescaling",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "StackedRNNCells",
    "activations",
    "clear_session",
    "deserialize",
    "get",
    "initializers",
    "register_layer",
    "serialize",
]
