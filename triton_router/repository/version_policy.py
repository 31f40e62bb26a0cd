"""Which versions of a model are served, as its ``config.pbtxt`` says. That is changed; all else stays as written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tritonclient.grpc.model_config_pb2 import ModelVersionPolicy

from triton_router.errors import ConfigError
from triton_router.repository.model_config import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tritonclient.grpc.model_config_pb2 import ModelConfig

_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
      | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<open>[{<\[]) | (?P<close>[}>\]])
      | (?P<word>[A-Za-z0-9_.+/-]+) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_FIELD = "version_policy"


def served_by_policy(config: ModelConfig, on_disk: Sequence[int]) -> tuple[int, ...]:
    """Return the versions that Triton loads of those on disk, ascending."""
    policy = config.version_policy
    kind = policy.WhichOneof("policy_choice")
    versions = sorted(on_disk)
    if kind == "all":
        return tuple(versions)
    if kind == "specific":
        return tuple(version for version in versions if version in policy.specific.versions)
    latest = policy.latest.num_versions if kind == "latest" else 1
    return tuple(versions[-max(1, latest) :])


def with_versions(text: str, versions: Sequence[int], *, source: str) -> str:
    """Return the text of a ``config.pbtxt`` whose model serves these versions, all else to the character as it was.

    Args:
        text: Protobuf text format.
        versions: Those to serve.
        source: Where the text came from, for messages.

    Raises:
        ConfigError: It is not a valid configuration, or written so that this cannot be changed alone.
    """
    wanted = parse(text, source=source)
    numbers = sorted(set(versions))
    wanted.version_policy.CopyFrom(ModelVersionPolicy(specific=ModelVersionPolicy.Specific(versions=numbers)))
    line = f"{_FIELD} {{ specific {{ versions: [ {', '.join(str(number) for number in numbers)} ] }} }}"
    span = _span(text)
    if span is None:
        end = "" if not text or text.endswith("\n") else "\n"
        changed = f"{text}{end}{line}\n"
    else:
        changed = text[: span[0]] + line + text[span[1] :]
    if parse(changed, source=source) != wanted:
        raise ConfigError(
            f"the {_FIELD} of {source} cannot be changed without writing the file anew",
            hint=f"write this into it by hand: {line}",
        )
    return changed


def _span(text: str) -> tuple[int, int] | None:
    """Return where the field stands at the top level of a text: from its name to its closing bracket."""
    depth, start = 0, None
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
            if depth == 0 and start is not None:
                return start, token.end()
        elif token["word"] == _FIELD and depth == 0:
            start = token.start()
    return None
