"""What all settings have in common: unknown keys are refused, values are checked, nothing changes afterwards."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from triton_router.errors import ConfigError
from triton_router.routing.policies import POLICIES, policy_named
from triton_router.routing.types import Backend, backend_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triton_router.routing.policies import Policy


class Settings(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _number(value: object) -> object:
    """Take a number that is written as text, such as ``"0.3"``: the original's examples have some."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _backend(value: object) -> object:
    return backend_named(value) if isinstance(value, str) else value


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` if a known word is close, else ""."""
    close = get_close_matches(str(word), list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


Number = Annotated[float, BeforeValidator(_number)]
Share = Annotated[Number, Field(ge=0, le=1)]
Bound = Annotated[Number, Field(ge=0, le=1e12)]
"""A bound of 0 is none."""
BackendName = Annotated[Backend, BeforeValidator(_backend)]


class PolicySettings(Settings):
    """A policy: its name alone, or ``{name, parameters}``.

    Attributes:
        name: One of those that docs/router-yaml.md lists.
        parameters: Those that differ from their defaults.
    """

    name: str
    parameters: dict[str, Number] = Field(default_factory=dict[str, float])

    def made(self) -> Policy:
        """Return the policy."""
        return policy_named(self.name, self.parameters)


def _policy(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _made(settings: PolicySettings) -> PolicySettings:
    known = (*POLICIES, "balanced")
    if settings.name not in known:
        raise ValueError(
            f"there is no policy {settings.name!r}{suggestion(settings.name, known)}; use one of {', '.join(known)}"
        )
    try:
        settings.made()
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return settings


PolicyValue = Annotated[PolicySettings, BeforeValidator(_policy), AfterValidator(_made)]
"""A policy that exists, with parameters that it has."""


def backends_by_name(value: object) -> object:
    """Return a mapping with its keys as backends, aliases resolved."""
    if not isinstance(value, dict):
        return value
    weights: Mapping[object, object] = value
    found: dict[Backend, object] = {}
    for key, weight in weights.items():
        backend = backend_named(str(key))
        if backend in found:
            raise ValueError(f"{backend} stands twice, once by another name")
        found[backend] = weight
    return found
