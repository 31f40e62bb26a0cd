"""The table of server capabilities."""

from __future__ import annotations

from dataclasses import fields

import pytest

from triton_router.serving.capabilities import FIRST_RELEASE, RELEASES, Capabilities, capabilities, release_of


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("2.51.0", "24.10"),
        ("24.10", "24.10"),
        ("2.59.1", "25.06"),
        ("26.04", "26.04"),
        ("2.99.0", "26.05"),
        ("1.9", None),
        ("", None),
    ],
)
def test_versions_and_releases_name_the_same_server(version: str, release: str | None) -> None:
    """A server version is translated, a release is taken, anything else is unknown."""
    assert release_of(version) == release


def test_capabilities_come_with_their_release_and_stay() -> None:
    """Each is absent just before its release and present from then on."""
    for name, first in FIRST_RELEASE.items():
        year, month = map(int, first.split("."))
        before = f"{year}.{month - 1:02d}" if month > 1 else f"{year - 1}.12"
        assert not getattr(capabilities(before), name)
        assert getattr(capabilities(first), name)
        assert getattr(capabilities("30.01"), name)


def test_an_unknown_server_is_trusted_with_nothing_new() -> None:
    """Only answering late, which every supported server can, is assumed."""
    unknown = capabilities(None)
    assert not unknown.known
    assert unknown.late_responses
    assert len(unknown.missing) == len(FIRST_RELEASE) - 1


def test_the_tables_are_complete() -> None:
    """Every capability has a release, and releases ascend with versions."""
    assert {item.name for item in fields(Capabilities)} - {"release"} == set(FIRST_RELEASE)
    assert list(RELEASES.values()) == sorted(RELEASES.values())
