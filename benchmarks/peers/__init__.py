"""transformers' and timm's own model tests, on models with units: `python -m benchmarks.peers --help`."""

__all__: list[str] = []
