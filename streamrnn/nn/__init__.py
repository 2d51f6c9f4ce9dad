"""Layers, models, training and model files: usable alone, without streams."""

__all__: list[str] = []
