"""Recipes: data sets, the one shared training entry, the tables."""

__all__: list[str] = []
