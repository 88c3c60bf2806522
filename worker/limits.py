"""Fleet-wide limits, held in Redis: requests, tokens, calls in flight, cooldowns."""
