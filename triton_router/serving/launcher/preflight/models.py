"""Checks of the models that a server will load, above all of routed models against their targets."""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import TYPE_CHECKING

from triton_router.repository.compatibility import incompatibilities
from triton_router.serving.launcher.backend_directory import is_plain
from triton_router.serving.launcher.preflight.finding import Finding, error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_router.config.router_config import TargetConfig
    from triton_router.serving.launcher.models import ServedModel

_PACKAGES = {"onnx": ("onnxruntime", "serve"), "torch": ("torch", "torch"), "coreml": ("coremltools", "coreml")}
"""Backend of ours to the package it needs and the extra that brings it."""


def readable(models: Sequence[ServedModel]) -> list[Finding]:
    """config.pbtxt and router.yaml must be valid."""
    return [
        error(f"model {model.name!r}", model.problem.message, model.problem.hint)
        for model in models
        if model.problem is not None
    ]


def unique(models: Sequence[ServedModel]) -> list[Finding]:
    """A model that stands in two repositories is served from neither."""
    counts = Counter(model.name for model in models)
    return [
        error(
            f"model {name!r} is in {count} repositories",
            "Triton serves a model from none of them then",
            "remove or rename all but one",
        )
        for name, count in counts.items()
        if count > 1
    ]


def plain_names(models: Sequence[ServedModel]) -> list[Finding]:
    """The Python backend starts a stub through a shell that splits a model's path at blanks."""
    return [
        error(
            f"the model name {model.name!r} has characters that Triton's Python backend cannot use",
            "its process would die at the start, and the server wait for it for ever",
            "use letters, digits, '.', '_' and '-'",
        )
        for model in models
        if not is_plain(model.name)
    ]


def wanted_exist(models: Mapping[str, ServedModel], names: Sequence[str]) -> list[Finding]:
    """Models named by --load-model must exist."""
    return [
        error(
            f"model {name!r} of --load-model is in no repository",
            "Triton could not load it",
            f"choose from {', '.join(sorted(models))}" if models else "add it with 'triton-router add'",
        )
        for name in names
        if name != "*" and name not in models
    ]


def complete_files(models: Sequence[ServedModel]) -> list[Finding]:
    """Every model needs a version; a Python one without its file makes the server wait for ever (seen on 2.51)."""
    found: list[Finding] = []
    for model in models:
        if model.problem is None and not model.versions:
            version = model.version_directory(1)
            # Nothing belongs in the version of a model that only calls others, but Triton wants it to be there.
            calls_others = model.routed or model.backend == "ensemble"
            found.append(
                error(
                    f"model {model.name!r} has no version directory",
                    "Triton cannot load a model without a version",
                    f"create the empty directory {version}"
                    if calls_others
                    else f"create {version} with the model's file in it",
                )
            )
        if model.backend != "python":
            continue
        name = (model.config.default_model_filename if model.config is not None else "") or "model.py"
        found += [
            error(
                f"model {model.name!r} has no {name} in version {version}",
                "the server would wait for it for ever",
                f"add {model.version_directory(version) / name}, or remove that version",
            )
            for version in model.versions[-1:]
            if not (model.version_directory(version) / name).is_file()
        ]
    return found


def backends_present(models: Sequence[ServedModel], available: Mapping[str, bool]) -> list[Finding]:
    """Every model's backend must be there, and the package that a Python-based one of ours runs on.

    Args:
        models: Those that will be loaded.
        available: Backend names; True for those that this project brings.
    """
    found: list[Finding] = []
    for model in models:
        name = model.backend
        if model.problem is not None or name in {"", "ensemble"} or _brings_its_own(model, name):
            continue
        if name not in available:
            found.append(
                error(
                    f"model {model.name!r} needs the backend {name!r}",
                    f"this server has {', '.join(sorted(available))}",
                    "use NVIDIA's tritonserver image that has it, or remove the model and its target",
                )
            )
            continue
        package, extra = _PACKAGES.get("onnx" if name == "onnxruntime" else name, ("", ""))
        if available[name] and package and importlib.util.find_spec(package) is None:
            found.append(
                error(
                    f"model {model.name!r} needs the Python package {package!r}",
                    f"the backend {name!r} runs on it, and it is not installed",
                    f"pip install 'triton-router[{extra}]'",
                )
            )
    return found


def router_settings(models: Sequence[ServedModel]) -> list[Finding]:
    """What Triton offers and a routed model must not use."""
    found: list[Finding] = []
    for model in models:
        if not model.routed or model.config is None:
            continue
        if model.router is None and model.problem is None:
            found.append(
                error(
                    f"routed model {model.name!r} has no router.yaml",
                    "the router does not know its targets",
                    f"create {model.directory / 'router.yaml'} with a list of targets",
                )
            )
        if model.config.response_cache.enable:
            found.append(
                error(
                    f"routed model {model.name!r} enables the response cache",
                    "its key leaves out request parameters, so answers would go to the wrong requests",
                    "remove response_cache from its config.pbtxt; enable it on the targets",
                )
            )
        if any(group.rate_limiter.resources for group in model.config.instance_group):
            found.append(
                error(
                    f"routed model {model.name!r} holds rate limiter resources",
                    "it would wait for targets that wait for the same resources",
                    "remove rate_limiter from its config.pbtxt; set it on the targets",
                )
            )
    return found


def targets_fit(models: Mapping[str, ServedModel]) -> list[Finding]:
    """Every target must exist and be able to answer whatever its routed model accepts."""
    found: list[Finding] = []
    for model in models.values():
        for target in model.router.targets if model.router is not None else ():
            sibling = models.get(target.model)
            found += _target_exists(model, target, sibling)
            if sibling is not None:
                found += _target_answers(model, target, sibling)
    return found


def _target_exists(model: ServedModel, target: TargetConfig, sibling: ServedModel | None) -> list[Finding]:
    where = f"target {target.name!r} of routed model {model.name!r}"
    if sibling is None:
        return [
            error(
                f"{where} is the model {target.model!r}, which is in no repository",
                "no request could go there",
                f"add the model, or remove the target from {model.directory / 'router.yaml'}",
            )
        ]
    if target.version is not None and target.version not in sibling.versions:
        has = ", ".join(map(str, sibling.versions)) or "none"
        return [
            error(
                f"{where} names version {target.version} of {target.model!r}",
                f"that model has {has}",
                "correct the version, or leave it out",
            )
        ]
    return []


def _target_answers(model: ServedModel, target: TargetConfig, sibling: ServedModel) -> list[Finding]:
    if model.config is None or sibling.config is None or model.router is None:
        return []
    where = f"target {target.name!r} of routed model {model.name!r}"
    found = [
        error(f"{where} does not fit", reason, f"correct config.pbtxt of {model.name!r} or {sibling.name!r}")
        for reason in incompatibilities(model.config, sibling.config)
    ]
    streams = sibling.router is not None and sibling.router.streaming  # config.pbtxt need not say so then
    if (streams or sibling.config.model_transaction_policy.decoupled) and not model.router.streaming:
        found.append(
            error(
                f"{where} is decoupled",
                "a unary router takes one response per request and would fail on every call",
                "set 'streaming: true' in router.yaml of a routed model of its own for streaming",
            )
        )
    return found


def _brings_its_own(model: ServedModel, backend: str) -> bool:
    library = f"libtriton_{backend}.so"
    places = [model.directory, *(model.version_directory(version) for version in model.versions)]
    return any((place / library).is_file() for place in places)
