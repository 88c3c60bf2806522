"""OpenAI's protocol, and the providers that speak it."""
