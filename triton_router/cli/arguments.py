"""What values options can have. Each function reads one; what it refuses is wrong usage, said in the user's words."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

_LAST_PORT = 65_535
_LONGEST_S = 86_400


def port(text: str) -> int:
    """Return a TCP port."""
    return _port(text, 1)


def port_or_any(text: str) -> int:
    """Return a TCP port; 0 has the system choose one."""
    return _port(text, 0)


def seconds(text: str) -> float:
    """Return a time, a day at most."""
    value = _number(text)
    if not 0 <= value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_LONGEST_S}")
    return value


def milliseconds(text: str) -> float:
    """Return a latency bound, a day at most."""
    value = _number(text)
    if not 0 < value <= _LONGEST_S * 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds above 0, a day at most")
    return value


def count(text: str) -> int:
    """Return a number of things, which may be none."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return value


def positive(text: str) -> int:
    """Return a count, or an id, of 1 or more."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def share(text: str) -> float:
    """Return a part of a whole."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def server_url(text: str) -> str:
    """Return the HTTP address of a server as it was written, its port being one."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        is_one = False
    if not is_one:
        raise argparse.ArgumentTypeError(f"{text!r} is not the URL of an HTTP server, such as http://localhost:8000")
    return text


def _port(text: str, first: int) -> int:
    value = _whole(text)
    if not first <= value <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give {first} to {_LAST_PORT}")
    return value


def _whole(text: str) -> int:
    """Return a number without a sign; -1 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(1 << 64)) else -1


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
