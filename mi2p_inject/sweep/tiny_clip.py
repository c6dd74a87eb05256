from __future__ import annotations


def tower_names() -> list[str]:
    return []


def build(name): ...
