"""Recipes: data sets, the one shared training entry, the tables."""
