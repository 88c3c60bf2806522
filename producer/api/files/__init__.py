"""OpenAI's Files API, and where the bytes are kept."""
