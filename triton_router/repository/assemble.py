"""Lay out the finished directories of one addition: targets, then the routed model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import triton_router
from triton_router.config.loading import load_yaml
from triton_router.errors import ConfigError, NotFoundError
from triton_router.repository import manifest, model_config
from triton_router.repository.plan import BY_SUFFIX
from triton_router.repository.target_config import Served, routed_config, router_yaml, target_config
from triton_router.repository.variants import checks_json

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.analysis.report import AnalysisReport
    from triton_router.repository.build.job import BatchVerdict, IoSpec
    from triton_router.repository.manifest import Manifest
    from triton_router.repository.variants import Outcome

ROUTER_FILE = "router.yaml"
ARTIFACTS = "artifacts"


@dataclass(frozen=True, slots=True)
class Addition:
    """Everything known of a version that is about to be installed.

    Attributes:
        name: Name of the routed model.
        version: Number of the version.
        source_kind: ``onnx``, ``pt2`` or ``factory``.
        source_sha256: Digest of the source file.
        fingerprint: Digest that tells whether two sources are the same model.
        options: What else decided what was built.
        report: The analysis.
        io: The contract of all targets.
        batch: What merging requests does to the parent's answers.
        max_batch_size: For every configuration.
        outcomes: What became of each row of the plan.
        tools: Versions of what ran the parent.
    """

    name: str
    version: int
    source_kind: str
    source_sha256: str
    fingerprint: str
    options: Manifest
    report: AnalysisReport
    io: IoSpec
    batch: BatchVerdict
    max_batch_size: int
    outcomes: tuple[Outcome, ...]
    tools: dict[str, str]


def assemble(addition: Addition, repository: Path, folder: Path) -> tuple[Path, ...]:
    """Write each model's directory under ``folder``; returned in the order of installation.

    Args:
        addition: What was built.
        repository: The repository, for what earlier versions say.
        folder: On the repository's file system; files move here from where they were built.
    """
    targets = [
        _target_directory(addition, outcome, repository, folder)
        for outcome in addition.outcomes
        if outcome.status == "served"
    ]
    return (*targets, _routed_directory(addition, repository, folder))


def _target_directory(addition: Addition, outcome: Outcome, repository: Path, folder: Path) -> Path:
    assert outcome.staging is not None  # noqa: S101 - a served outcome has files
    target = BY_SUFFIX[outcome.row.target]
    name = f"{addition.name}-{target.suffix}"
    directory = folder / name
    directory.mkdir(parents=True)
    outcome.staging.rename(directory / str(addition.version))
    config = target_config(name, target, addition.io, addition.max_batch_size, _batch(addition, outcome))
    (directory / model_config.CONFIG_FILE).write_text(model_config.render(config), encoding="utf-8")
    files = manifest.hashed_files(directory / str(addition.version), outcome.result.files)
    known = manifest.with_version(
        manifest.read(repository / name),
        {"model": addition.name, "target": target.suffix},
        addition.version,
        _built(addition, outcome, files),
    )
    (directory / manifest.MANIFEST_FILE).write_text(manifest.render(known), encoding="utf-8")
    return directory


def _routed_directory(addition: Addition, repository: Path, folder: Path) -> Path:
    directory = folder / addition.name
    version = directory / str(addition.version)
    version.mkdir(parents=True)
    # Triton wants a version directory and git keeps no empty one.
    (version / ".gitkeep").touch()
    kept = _keep_artifacts(addition, directory)
    config = routed_config(addition.name, addition.io, addition.max_batch_size)
    (directory / model_config.CONFIG_FILE).write_text(model_config.render(config), encoding="utf-8")
    served = [
        Served(
            BY_SUFFIX[outcome.row.target],
            f"{addition.name}-{outcome.row.target}",
            _batch(addition, outcome),
            outcome.checks.latency if outcome.checks else (),
        )
        for outcome in addition.outcomes
        if outcome.status == "served"
    ]
    text = router_yaml(addition.name, served, _present_settings(repository / addition.name / ROUTER_FILE))
    (directory / ROUTER_FILE).write_text(text, encoding="utf-8")
    entry = {
        "source": {"kind": addition.source_kind, "sha256": addition.source_sha256},
        "fingerprint": addition.fingerprint,
        "options": addition.options,
        "io": {
            "inputs": [asdict(spec) for spec in addition.io.inputs],
            "outputs": [asdict(s) for s in addition.io.outputs],
        },
        "batch": addition.batch,
        "max_batch_size": addition.max_batch_size,
        "characteristics": asdict(addition.report.characteristics),
        "targets": {outcome.row.target: _row(outcome, kept) for outcome in addition.outcomes},
        "tools": {**addition.tools, "triton-router": triton_router.__version__},
    }
    known = manifest.with_version(
        manifest.read(repository / addition.name), {"model": addition.name}, addition.version, entry
    )
    (directory / manifest.MANIFEST_FILE).write_text(manifest.render(known), encoding="utf-8")
    return directory


def _batch(addition: Addition, outcome: Outcome) -> BatchVerdict:
    """Return the target's own verdict; what could not be run here is taken to be like its parent."""
    return outcome.checks.batch if outcome.checks else addition.batch


def _keep_artifacts(addition: Addition, directory: Path) -> dict[str, Manifest]:
    """Move what is not served here beside the routed model; Triton ignores directories without a number."""
    kept: dict[str, Manifest] = {}
    for outcome in addition.outcomes:
        if outcome.status == "kept" and outcome.staging is not None:
            place = directory / ARTIFACTS / str(addition.version) / outcome.row.target
            place.parent.mkdir(parents=True, exist_ok=True)
            outcome.staging.rename(place)
            files = manifest.hashed_files(place, outcome.result.files)
            kept[outcome.row.target] = _built(addition, outcome, files)
    return kept


def _built(addition: Addition, outcome: Outcome, files: Manifest) -> Manifest:
    return {
        "files": files,
        "variant": outcome.row.variant,
        "source_sha256": addition.source_sha256,
        "checks": checks_json(outcome),
        "tools": outcome.result.tools or addition.tools,
        "notes": list(outcome.result.notes),
    }


def _row(outcome: Outcome, kept: dict[str, Manifest]) -> Manifest:
    row: Manifest = {"status": outcome.status, "reason": outcome.reason}
    return {**row, **kept.get(outcome.row.target, {})}


def _present_settings(path: Path) -> dict[str, Any]:
    """Return the ``router.yaml`` that is there, which a user may have edited; empty if there is none.

    Raises:
        ConfigError: It is not YAML of the kind that a router reads.
    """
    try:
        value: object = load_yaml(path).data
    except NotFoundError:
        return {}
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"{error.hint}, then add the version again") from error
    return dict(value) if isinstance(value, dict) else {}
