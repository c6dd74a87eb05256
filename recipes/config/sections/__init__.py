"""The sections of a configuration: its fields, each written once."""

__all__: list[str] = []
