"""What of ``router.yaml`` a routed model can follow while it serves, and what only a reload of it can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triton_router.errors import ConfigError

if TYPE_CHECKING:
    from triton_router.config.router_config import RouterConfig

NEED_RELOAD = ("streaming", "decision_log", "state.keep")
"""Keys that are followed only when the model is loaded."""


def refuse_unfollowable(before: RouterConfig, after: RouterConfig, source: str) -> None:
    """Do nothing if a model that serves by ``before`` can go on by ``after``.

    Args:
        before: The settings in force.
        after: Those to follow.
        source: Where they come from, for the message.

    Raises:
        ConfigError: A key has changed that needs a reload.
    """
    changed = [key for key in NEED_RELOAD if _value(before, key) != _value(after, key)]
    if changed:
        verb = "has" if len(changed) == 1 else "have"
        raise ConfigError(
            f"{source}: {' and '.join(changed)} {verb} changed, which a model that is serving cannot follow",
            hint="reload the model with 'triton-router models load MODEL', or undo that change",
        )


def _value(settings: object, key: str) -> object:
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings
