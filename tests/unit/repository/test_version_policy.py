"""Which versions a config.pbtxt has served, and how that is changed without touching anything else."""

from __future__ import annotations

import pytest

from triton_router.errors import ConfigError
from triton_router.repository.model_config import parse
from triton_router.repository.version_policy import served_by_policy, with_versions


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("", (4,)),
        ("version_policy { latest { } }", (4,)),
        ("version_policy { latest { num_versions: 2 } }", (2, 4)),
        ("version_policy { all { } }", (1, 2, 4)),
        ("version_policy { specific { versions: [ 1, 3 ] } }", (1,)),
    ],
)
def test_what_a_policy_serves_of_three_versions(text: str, served: tuple[int, ...]) -> None:
    """As Triton reads it: the highest one by default."""
    assert served_by_policy(parse(text, source="t"), (4, 1, 2)) == served


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            'name: "m" # version_policy {\nversion_policy: { all { } } ; max_batch_size: 3\n',
            ("# version_policy {", "3"),
        ),
        ('name: "m"', ('name: "m"\n',)),
        ("# only a comment", ("# only a comment\n",)),
        ("version_policy <latest < num_versions: 2 >> # why\n", (" # why",)),
        ("version_policy: {\n  # all\n  specific: { versions: [1] }\n}\n# end\n", ("\n# end\n",)),
        (
            'parameters { key: "version_policy" value { string_value: "version_policy { \\" }" } }\n',
            ('string_value: "version_policy { \\" }"',),
        ),
    ],
)
def test_the_policy_alone_is_changed(text: str, kept: tuple[str, ...]) -> None:
    """In every way in which it can be written, or is absent, and whatever looks like it."""
    changed = with_versions(text, [2, 1, 2], source="config.pbtxt")
    assert all(part in changed for part in kept)
    found = parse(changed, source="t")
    assert list(found.version_policy.specific.versions) == [1, 2]
    found.ClearField("version_policy")
    expected = parse(text, source="t")
    expected.ClearField("version_policy")
    assert found == expected
    assert with_versions(changed, [1, 2], source="t") == changed


def test_an_invalid_file_is_refused() -> None:
    """By name."""
    with pytest.raises(ConfigError, match=r"config\.pbtxt is not a valid"):
        with_versions("nonsense {", [1], source="config.pbtxt")
