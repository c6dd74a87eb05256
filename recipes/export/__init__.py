"""A trained run as one file for other programs: `mi2p export`."""

__all__: list[str] = []
