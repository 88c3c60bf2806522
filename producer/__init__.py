"""Accepts work and returns results."""
