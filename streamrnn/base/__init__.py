"""What all rings stand on: storage, plug-ins, texts for people, types for annotations."""

__all__: list[str] = []
