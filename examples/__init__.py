"""Worked examples, run from a checkout: ``python -m examples.digits``."""
