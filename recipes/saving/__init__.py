"""Run folders: what a training leaves on disk, written whole, held by one process, and read back."""

from __future__ import annotations

__all__: list[str] = []
