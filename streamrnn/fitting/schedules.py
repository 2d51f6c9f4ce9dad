"""Schedules of the learning rate in [train], over the share of training that is done."""

from streamrnn.training.curves import cosine


def constant(done: float) -> float:
    """Return 1: the learning rate does not change.

    >>> constant(0.5)
    1.0
    """
    return 1.0


SCHEDULES = {"constant": constant, "cosine": cosine}
