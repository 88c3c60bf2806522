"""The numbers of the limiter's law that both its Lua scripts and Python go by: `.lua` files import them from here."""

USED_SHARE = 0.99
"""The share of a configured or advertised limit that is used: calls arrive a little sooner or later than they were
sent, and a provider that counts strictly refuses those that arrive too soon."""

BURST_MS = 1_000
"""This much of a schedule may be taken ahead of it."""

SLOW_GROWTH, SLOW_GROWTH_S, FAST_GROWTH, FAST_GROWTH_S = 1.01, 30, 1.1, 1_000
"""A learned rate grows by the first factor each second; by the second one after SLOW_GROWTH_S seconds, or at once where
it is a rough guess, and for at most FAST_GROWTH_S."""

NO_LIMIT = 1_000_000
"""A learned rate (per minute) that has grown to this limits nothing."""

WIDE = 250
"""A slow start with a window of this many calls in flight delays nothing."""

PROBE_AFTER = 2
"""After this many cooldowns in a row single calls (probes) are let through until one is answered, unless the provider
said when it is back. Breakers know no such hint."""

PROBE_PAUSE_MS, LONGEST_PROBE_PAUSE_MS = 1_000, 30_000
"""Bounds of the pause between two probes. For a breaker it is a sixth of the time it was open at the latest probe."""
