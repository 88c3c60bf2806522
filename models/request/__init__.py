"""The contents of a caller's request, and what it needs from a model."""
