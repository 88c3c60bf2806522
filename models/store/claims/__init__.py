"""What workers hold: leases, claimed and settled jobs, and the rescue of a dead worker's jobs."""
