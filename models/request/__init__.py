"""What a caller's request is made of, and what it needs of a model."""
