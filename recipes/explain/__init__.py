"""Explanations of a trained run: what it attends to for one sample, and whether such evidence holds on a test split."""
