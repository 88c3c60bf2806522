"""Keys, limits and usage of tenants."""
