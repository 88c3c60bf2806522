"""Single jobs: looked up, listed, cancelled, run again."""
