"""The HTTP server below the application: connections, heads and addresses."""
