"""One module for each command, or for commands about the same things."""
