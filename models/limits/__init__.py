"""The limiter's state in Redis, as people and metrics read it."""
