"""Cost against sites, tokens, channels, samples and ranks: `python -m benchmarks.growth`, docs/growth.md."""

__all__: list[str] = []
