"""What can be left out: each plug-in is found by its entry points, and imported by nobody."""

__all__: list[str] = []
