"""Writes repositories of targets that misbehave on demand, and holds their switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MODEL = '''"""See triton_router.testing.switched_model."""

from triton_router.testing.switched_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_CONFIG = """\
backend: "python"
max_batch_size: 8
input {{ name: "X" data_type: TYPE_FP64 dims: [ 4 ] }}
output {{ name: "Y" data_type: TYPE_FP64 dims: [ 4 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "switch" value {{ string_value: "{switch}" }} }}
parameters {{ key: "service_ms" value {{ string_value: "{service_ms}" }} }}
"""


class SwitchedFleet:
    """A repository with such targets; see `triton_router.testing.switched_model` for what they can do.

    Args:
        directory: Where ``models`` and ``switches`` are made.
    """

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "models"
        self._switches = directory / "switches"
        self.repository.mkdir(parents=True)
        self._switches.mkdir()

    def add_target(self, name: str, *, service_ms: float = 1.0) -> None:
        """Write a target that takes so many milliseconds for each request."""
        version = self.repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL, encoding="utf-8")
        config = _CONFIG.format(switch=self._switches / name, service_ms=service_ms)
        (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")

    def add_routed(self, name: str, targets: Sequence[Mapping[str, Any] | str], **settings: object) -> None:
        """Write a routed model; a target that is a name alone has no settings of its own."""
        (self.repository / name / "1").mkdir(parents=True)
        (self.repository / name / "config.pbtxt").write_text('backend: "router"\n', encoding="utf-8")
        self.configure(name, targets, **settings)

    def configure(self, name: str, targets: Sequence[Mapping[str, Any] | str], **settings: object) -> None:
        """Replace a routed model's ``router.yaml``, in one step."""
        listed = [{"name": one, "model": one} if isinstance(one, str) else dict(one) for one in targets]
        self.edit(name, yaml.safe_dump({"targets": listed, **settings}))

    def edit(self, name: str, text: str) -> None:
        """Replace a routed model's ``router.yaml`` by this text, in one step."""
        _replace(self.repository / name / "router.yaml", text)

    def switch(self, target: str, line: str = "ok") -> None:
        """Have a target do something else from its next request on."""
        _replace(self._switches / target, line)


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
