"""The process's own router is one: each test finds it as a new process would."""

from __future__ import annotations

import pytest

from triton_router import ModelRouter, ModelRouterConfigBuilder


@pytest.fixture(autouse=True)
def _unconfigured() -> None:
    ModelRouterConfigBuilder().build().apply_to_router(ModelRouter.get_instance())
