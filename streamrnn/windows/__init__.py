"""Rows to stream order, and streams to windows of fixed size."""

from streamrnn.windows.arrange import Arranged, Rules, arrange
from streamrnn.windows.past import Past, Update
from streamrnn.windows.windower import Inputs, Lanes, Window, pack

__all__ = ["Arranged", "Inputs", "Lanes", "Past", "Rules", "Update", "Window", "arrange", "pack"]
