"""Budgets and fallback shares, reserved before a call and settled after it."""
