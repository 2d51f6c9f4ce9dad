"""Models: Sequential, the functional Model, and how a pipeline runs them (Stream, Whole)."""

from streamrnn.models.model import Model
from streamrnn.models.sequential import Sequential
from streamrnn.models.stream import Stream
from streamrnn.models.whole import Whole

__all__ = ["Model", "Sequential", "Stream", "Whole"]
