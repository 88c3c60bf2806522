"""Redis as a queue: the names of its keys, the tickets in it, and whether a server is suitable."""
