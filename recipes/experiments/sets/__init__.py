"""Declarations: the experiments of the demo, of the paper's tables and of the search for defaults."""

__all__: list[str] = []
