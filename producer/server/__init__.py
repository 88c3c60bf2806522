"""The HTTP server below the application: connections, request heads and addresses."""
