"""From a request to the chain of deployments that may answer it."""
