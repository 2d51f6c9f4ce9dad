"""What a pipeline can do: run, fit, evaluate, explain, and keep its outputs."""

__all__: list[str] = []
