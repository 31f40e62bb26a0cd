"""What may be written into a manifest or a configuration: names, hosts, images, percentages.

Values become data that a library writes down, so none of them can add a line of YAML. They are checked all the same,
because the cluster would refuse them later and with less to go by, and because a plain nginx.conf has no such library.
"""

from __future__ import annotations

import re

from triton_router.config.printable import shortened
from triton_router.errors import InvalidInputError

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_IMAGE_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
_TAG = r"(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
_IMAGE = rf"(?:{_REGISTRY}/)?{_IMAGE_PART}(?:/{_IMAGE_PART})*(?::{_TAG})?(?P<digest>@sha256:[a-f0-9]{{64}})?"

_LONGEST_IMAGE = 255
_LONGEST_NAME = 253
_LONGEST_SHOWN = 80
_MOST_REPLICAS = 10_000

LONGEST_BASE = 63 - len("-canary")
"""Characters of a release's name: its services append the track's, and are labels of DNS."""


def base_name(text: str) -> str:
    """Return the name of a release: it begins those of its services, which RFC 1035 wants to begin with a letter."""
    if len(text) <= LONGEST_BASE and re.fullmatch(r"[a-z](?:[-a-z0-9]*[a-z0-9])?", text):
        return text
    raise _refused("--name", text, f"at most {LONGEST_BASE} lower-case letters, digits and '-', a letter first")


def label(option: str, text: str) -> str:
    """Return a label of DNS as RFC 1123 has it: a namespace, for instance."""
    if re.fullmatch(_LABEL, text):
        return text
    raise _refused(option, text, "at most 63 lower-case letters, digits and '-', none at the ends")


def subdomain(option: str, text: str) -> str:
    """Return the name of an object: labels of DNS with dots between them."""
    if len(text) <= _LONGEST_NAME and re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", text):
        return text
    raise _refused(option, text, "lower-case letters, digits, '-' and '.', such as models-v2")


def host(text: str) -> str:
    """Return a host name that requests are addressed to: no wildcard, port or address, for those split otherwise."""
    checked = subdomain("--host", text) if not text.startswith("*") else ""
    if checked and not checked.rpartition(".")[2].isdigit():
        return checked
    raise _refused("--host", text, "a name such as triton.example.com, without wildcard, port or IP address")


def release_version(option: str, text: str) -> str:
    """Return the version of a release: a label's value, and the name of a directory."""
    if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", text):
        return text
    raise _refused(option, text, "at most 63 letters, digits, '.', '_' and '-', such as v2 or 2026-11-21")


def image(option: str, text: str) -> str:
    """Return the reference of an image that stays the same image."""
    found = re.fullmatch(_IMAGE, text) if len(text) <= _LONGEST_IMAGE else None
    if found is None:
        raise _refused(option, text, "a reference such as registry.example.com/triton-router:1.2.0")
    if not found["digest"] and found["tag"] in {None, "latest"}:
        raise InvalidInputError(
            f"{option} {text} names no particular image: pods of one release could come to differ",
            hint=f"pin it: {text.removesuffix(':latest')}:1.2.0, or @sha256:...",
        )
    return text


def header(text: str) -> str:
    """Return the name of a header, in lower case as HTTP/2 and Istio have it."""
    lowered = text.lower()
    if len(lowered) <= 63 and re.fullmatch(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", lowered):
        return lowered
    # nginx drops headers with an underscore, and others have each their own idea of further characters.
    raise _refused("--header", text, "letters, digits and '-', a letter first, such as x-canary")


def percentage(option: str, value: int) -> int:
    """Return a share of the traffic in whole percent: what all of the three meshes can be told."""
    if 0 <= value <= 100:
        return value
    raise _refused(option, str(value), "a whole number of percent from 0 to 100")


def replicas(option: str, value: int) -> int:
    """Return a number of pods that can serve."""
    if 1 <= value <= _MOST_REPLICAS:
        return value
    raise _refused(option, str(value), f"a number from 1 to {_MOST_REPLICAS:,}; --set-weight 0 is what stops traffic")


def model(text: str) -> str:
    """Return the name of a model as it may stand in a path of nginx."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", text):
        return text
    raise _refused("--model", text, "letters, digits, '.', '_' and '-', a letter or digit first")


def model_version(option: str, text: str) -> int:
    """Return the version of a model of Triton's."""
    if re.fullmatch(r"[1-9][0-9]{0,18}", text):
        return int(text)
    raise _refused(option, text, "with --plain, the number of the model's version, such as 2")


def address(option: str, text: str) -> str:
    """Return ``host:port``; a host is a name or an IPv4 address."""
    name, _, port = text.rpartition(":")
    if re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 1 << 16:
        return f"{subdomain(option, name)}:{port}"
    raise _refused(option, text, "host:port, such as 127.0.0.1:8000")


def _refused(option: str, text: str, wanted: str) -> InvalidInputError:
    return InvalidInputError(f"{option} {shortened(text, _LONGEST_SHOWN)!r} is not accepted", hint=f"give {wanted}")
