"""Batches: shown, paused, ended; and the chains of their jobs."""
