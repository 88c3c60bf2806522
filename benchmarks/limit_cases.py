"""The limits that a benchmark covers, from its command line."""

import argparse
from collections.abc import Iterator
from itertools import product


def command_line(
    description: str | None, *, seconds: float = 120.0, limits: str = "60,600,6000", servers: str = "bucket"
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--limits", default=limits)
    parser.add_argument("--known", default="configured,headers,neither")
    parser.add_argument("--servers", default=servers)
    parser.add_argument("--tokens", action="store_true")
    return parser


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Kind of server, calls per minute, and how the limit is known."""
    limits = map(int, arguments.limits.split(","))
    return product(arguments.servers.split(","), limits, arguments.known.split(","))
