"""Connections to SQLite or PostgreSQL: opening them, their errors, locks, disk space and schema."""
