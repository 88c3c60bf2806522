"""Statements about batches and runs: filled, paused, ended, compared and shown."""
