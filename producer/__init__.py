"""Accepts work and hands back results."""
