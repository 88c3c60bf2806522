"""Input files become validated jobs."""
