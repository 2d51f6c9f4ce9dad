"""All operators besides the recurrent ones: the modules that fill the table."""

from streamrnn.plugins.onnx import (
    activation_operators,
    number_operators,
    quantized_operators,
    shape_operators,
    window_operators,
)
from streamrnn.plugins.onnx.operator_table import ALLOWED, CHECKS, MAX_VALUES, OPERATORS

__all__ = ["ALLOWED", "CHECKS", "MAX_VALUES", "MODULES", "OPERATORS"]

MODULES = (
    activation_operators,
    number_operators,
    quantized_operators,
    shape_operators,
    window_operators,
)
"""The modules with the functions."""
