"""Everything that touches RQ: tickets, its keys, and a worker class for its command line."""
