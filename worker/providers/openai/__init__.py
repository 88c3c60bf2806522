"""OpenAI's protocol, and the providers that support it."""
