"""What a routed model's two files may not say together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triton_router.config.router_config import ROUTER_FILE
from triton_router.errors import ConfigError

if TYPE_CHECKING:
    from triton_router.config.router_config import RouterConfig


def refuse_contradiction(config: RouterConfig, model_config: dict[str, Any]) -> None:
    """Raise `ConfigError` where ``config.pbtxt`` is at odds with ``router.yaml``, or with being routed at all."""
    decoupled = bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))
    if decoupled != config.streaming:
        raise ConfigError(
            f"{ROUTER_FILE} says streaming: {str(config.streaming).lower()}, but config.pbtxt says "
            f"model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}",
            hint="make them agree, or leave model_transaction_policy out of config.pbtxt",
        )
    if model_config.get("response_cache", {}).get("enable"):
        raise ConfigError(
            "the response cache is enabled on a routed model: its key leaves out request parameters",
            hint="remove response_cache from its config.pbtxt; enable it on the targets",
        )
    if any(group.get("rate_limiter", {}).get("resources") for group in model_config.get("instance_group", [])):
        raise ConfigError(
            "a routed model holds rate limiter resources: with its targets waiting for them this can deadlock",
            hint="remove rate_limiter from its instance_group; put it on the targets",
        )
