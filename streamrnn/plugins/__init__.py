"""Optional parts: each plug-in is found by its entry points, and no module imports it."""

__all__: list[str] = []
