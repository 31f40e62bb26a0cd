"""A router's whole configuration: read from JSON, made by the builder, written back, applied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.config.routing_settings import load_routing_settings, parse_routing_settings

if TYPE_CHECKING:
    from triton_router.config.routing_settings import RoutingSettings
    from triton_router.model_router.router import ModelRouter


class ModelRouterConfig:
    """A checked configuration.

    Attributes:
        settings: Its values.
    """

    def __init__(self, settings: RoutingSettings) -> None:
        self.settings = settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelRouterConfig) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.to_json())

    @classmethod
    def from_json(cls, source: str | Path) -> ModelRouterConfig:
        """Read a configuration: the text itself, or a ``Path`` to a file.

        Raises:
            NotFoundError: There is no such file.
            ConfigError: It is not valid; the message names line and key.
        """
        return cls(load_routing_settings(source) if isinstance(source, Path) else parse_routing_settings(source))

    def to_json(self) -> str:
        """Return it as `from_json` reads it."""
        return self.settings.model_dump_json(indent=2)

    def apply_to_router(self, router: ModelRouter) -> None:
        """Make a router go by it. It replaces what the router went by, and adds nothing up; what was learned stays."""
        router.configure(self.settings)
