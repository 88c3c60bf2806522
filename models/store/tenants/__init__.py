"""Keys, limits and use of tenants."""
