"""The flow of data: rows of many streams through a model, and back out. Read this ring first."""

__all__: list[str] = []
