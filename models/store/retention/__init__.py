"""Statements that delete: files, prompts, answers and what is old."""
