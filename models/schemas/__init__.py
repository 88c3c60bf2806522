"""JSON schemas that callers send, checked and applied in a process of their own."""
