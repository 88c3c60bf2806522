"""The numbers of the limiter's law that Python goes by as well: the Lua scripts import them from here."""

USED_SHARE = 0.99
"""The share of a configured or advertised limit that is used: calls arrive a little sooner or later than they were
sent, and a provider that counts strictly refuses those that arrive too soon."""

BURST_MS = 1_000
"""This much of a schedule may be taken ahead of it."""

WIDE = 250
"""A slow start whose window lets this many calls be in flight delays nothing."""
