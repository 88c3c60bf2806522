"""Who may ask, for how much: keys, tenants, quotas and backpressure."""
