"""Data for the recipes: from a CSV, a folder or a benchmark to `Samples`."""
