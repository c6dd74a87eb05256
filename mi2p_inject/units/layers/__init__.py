"""Layers that several kinds of units are made of."""

__all__: list[str] = []
