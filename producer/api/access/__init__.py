"""Access control: keys, tenants, quotas and backpressure."""
