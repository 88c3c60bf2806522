"""Fleet-wide limits in Redis, and which credentials are usable."""
