"""How work is presented: batches, jobs, providers, progress, and wait reasons."""
