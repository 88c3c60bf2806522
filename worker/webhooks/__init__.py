"""Delivery of webhooks: the body, the guard against internal addresses, the POST and its retries."""
