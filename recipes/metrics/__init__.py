"""Metrics of answers: of the task and of probabilities, their bootstrap intervals, and how answers are decided."""

__all__: list[str] = []
