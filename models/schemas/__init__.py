"""Callers' JSON schemas, checked and applied in a separate process."""
