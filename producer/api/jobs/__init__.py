"""Single jobs over HTTP."""
