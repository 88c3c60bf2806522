"""What people see of work: batches, jobs, providers, progress, and why something waits."""
