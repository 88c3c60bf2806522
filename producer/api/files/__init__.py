"""OpenAI's Files API, and the storage of the files."""
