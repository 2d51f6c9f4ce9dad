"""Keras's files: .keras archives, legacy .h5 models, and files of weights only."""
