"""Jobs, batches and runs: accepted, planned, claimed, ended, shown and run again."""
