"""Chat completions and embeddings that hold the connection."""
