"""Fleet-wide limits in Redis, and which credentials may be used now."""
