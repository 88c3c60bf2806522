"""Synchronous chat completions and embeddings."""
