"""Statements that delete: files, prompts, answers and old rows."""
