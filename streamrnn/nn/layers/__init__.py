"""Layers and cells with Keras's names, arguments and weight layouts, on float32 NumPy arrays."""

from streamrnn.errors import ArgumentError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.activations import (
    ELU,
    Activation,
    Gaussian,
    LeakyReLU,
    PReLU,
    ReLU,
    Softmax,
)
from streamrnn.nn.layers.attention import AdditiveAttention, Attention, Dot, MultiHeadAttention
from streamrnn.nn.layers.cell import Cell
from streamrnn.nn.layers.conv1d import Conv1D, Dense, DepthwiseConv1D, SeparableConv1D
from streamrnn.nn.layers.dropout import (
    ActivityRegularization,
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    Identity,
    SpatialDropout1D,
)
from streamrnn.nn.layers.embedding import CategoryEncoding, Discretization, Embedding
from streamrnn.nn.layers.gated import (
    GRU,
    LSTM,
    GRUCell,
    LayerNormLSTMCell,
    LSTMCell,
    PeepholeLSTMCell,
    SimpleRNN,
    SimpleRNNCell,
)
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.lookup import IntegerLookup, StringLookup
from streamrnn.nn.layers.masks import MaskedArray
from streamrnn.nn.layers.merge import (
    Add,
    Average,
    Concatenate,
    Masking,
    Maximum,
    Minimum,
    Multiply,
    NotEqual,
    Spread,
    Subtract,
)
from streamrnn.nn.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from streamrnn.nn.layers.operation import Input, InputLayer, Operation
from streamrnn.nn.layers.registry import clear_session, deserialize, get, register_layer, serialize
from streamrnn.nn.layers.reshape import (
    AveragePooling1D,
    Cropping1D,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    ZeroPadding1D,
)
from streamrnn.nn.layers.rnn import RNN, StackedRNNCells
from streamrnn.nn.layers.scaling import Normalization, Rescaling
from streamrnn.nn.layers.wrappers import Bidirectional, TimeDistributed

AvgPool1D = AveragePooling1D
Convolution1D = Conv1D
GlobalAvgPool1D = GlobalAveragePooling1D
GlobalMaxPool1D = GlobalMaxPooling1D
MaxPool1D = MaxPooling1D
SeparableConvolution1D = SeparableConv1D


def __getattr__(name: str) -> object:
    why = registry.why_missing(name, __all__)
    raise AttributeError(f"streamrnn.layers has no {name!r}{why}", name=name)


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "ELU", "GRU", "LSTM", "RNN", "Activation", "ActivityRegularization", "Add", "AdditiveAttention",
    "AlphaDropout", "ArgumentError", "Attention", "Average", "AveragePooling1D", "AvgPool1D",
    "BatchNormalization", "Bidirectional", "CategoryEncoding", "Cell", "Concatenate", "Conv1D",
    "Convolution1D", "Cropping1D", "Dense", "DepthwiseConv1D", "Discretization", "Dot", "Dropout",
    "Embedding", "Flatten", "GRUCell", "Gaussian", "GaussianDropout", "GaussianNoise",
    "GlobalAveragePooling1D", "GlobalAvgPool1D", "GlobalMaxPool1D", "GlobalMaxPooling1D",
    "GroupNormalization", "Identity", "Input", "InputLayer", "IntegerLookup", "LSTMCell", "Layer",
    "LayerNormLSTMCell", "LayerNormalization", "LeakyReLU", "MaskedArray", "Masking", "MaxPool1D",
    "MaxPooling1D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply", "Normalization",
    "NotEqual", "Operation", "PReLU", "PeepholeLSTMCell", "Permute", "RMSNormalization", "ReLU",
    "RepeatVector", "Rescaling", "Reshape", "SeparableConv1D", "SeparableConvolution1D",
    "SimpleRNN", "SimpleRNNCell", "Softmax", "SpatialDropout1D", "Spread", "StackedRNNCells",
    "StringLookup", "Subtract", "TimeDistributed", "UnitNormalization", "UpSampling1D",
    "ZeroPadding1D", "clear_session", "deserialize", "get", "register_layer", "serialize",
]  # fmt: skip
