"""Constants of the limiter that Python also uses: the Lua scripts import them from here."""

USED_SHARE = 0.99
"""The share of a configured or advertised limit that is used: calls arrive a little sooner or later than they were
sent, and a strict provider rejects those that arrive too soon."""

BURST_MS = 1_000
"""How far ahead of its schedule a burst may run."""

WIDE = 250
"""A slow-start window of this many calls in flight no longer delays anything."""
