"""What outgrows one small machine: a large decoder, and data that do not fit in memory."""

__all__: list[str] = []
