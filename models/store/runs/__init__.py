"""Runs: their lines, the job behind each line, and the process that owns a run."""
