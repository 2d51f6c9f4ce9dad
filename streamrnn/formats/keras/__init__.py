"""Keras's files: .keras archives, legacy .h5 models, and weights without a model."""
