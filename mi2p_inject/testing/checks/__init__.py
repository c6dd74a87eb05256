"""The checks: one function each, named `check_…`, whose docstring states the contract."""

__all__: list[str] = []
