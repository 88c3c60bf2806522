"""Turns input files into validated jobs."""
