"""Constants of the limiter, which its Lua scripts import from here."""

USED_SHARE = 0.99
"""The share of a configured or advertised limit that is used: calls arrive a little sooner or later than they were
sent, and a strict provider rejects those that arrive too soon."""

BURST_MS = 1_000
"""How far ahead of its schedule a burst may run."""

WIDE = 250
"""A slow-start window of this many calls in flight no longer delays anything."""

FIRST_COOLDOWN_MS, LONGEST_DOUBLING_MS = 2_000, 60_000
"""A cooldown without a hint is twice as long as the one before it, between these bounds."""
