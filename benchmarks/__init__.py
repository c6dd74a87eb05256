"""Measurements behind docs/performance.md: `python -m benchmarks`."""

__all__: list[str] = []
