"""Adapters, one for each wire protocol, and the only client that calls providers. Adapters translate and do no I/O."""
