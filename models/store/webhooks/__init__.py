"""Statements about webhooks: the outbox, deliveries and endpoints."""
