"""What workers hold: their leases, the jobs they claim and settle, and the rescue of what a dead one held."""
