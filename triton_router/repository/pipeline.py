"""Write a checked pipeline as a Triton ensemble, once, and never over somebody else's model."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelEnsembling

from triton_router.errors import ConfigError
from triton_router.repository.model_config import CONFIG_FILE, model_input, model_output, render

if TYPE_CHECKING:
    from triton_router.repository.pipeline_check import CheckedPipeline

_MARK = "# Written by triton-router pipeline from "
_SEAL = "# sha256 of what follows: "


def ensemble_config(checked: CheckedPipeline) -> ModelConfig:
    """Return the configuration of the ensemble.

    In a Triton ensemble the public names are the names of the tensors, so that a tensor which comes in or goes
    out takes its public name; every other keeps the one it has in the file, unless a public name is the same.
    """
    spec = checked.spec
    names = _ensemble_names(checked)
    config = ModelConfig(name=spec.name, platform="ensemble", max_batch_size=checked.max_batch_size)
    leave_out = 1 if checked.max_batch_size > 0 else 0  # Triton puts the batch dimension in front itself
    for public, tensor in spec.inputs.items():
        kind = checked.tensors[tensor].type
        config.input.append(model_input(public, kind.datatype, kind.shape[leave_out:]))
    for public, tensor in spec.outputs.items():
        kind = checked.tensors[tensor].type
        config.output.append(model_output(public, kind.datatype, kind.shape[leave_out:]))
    for step in spec.steps:
        config.ensemble_scheduling.step.append(
            ModelEnsembling.Step(
                model_name=step.model,
                model_version=-1 if step.version is None else step.version,
                input_map={name: names[tensor] for name, tensor in step.inputs.items()},
                output_map={name: names[tensor] for name, tensor in step.outputs.items()},
            )
        )
    return config


def write_pipeline(
    checked: CheckedPipeline, repository: Path, *, source: str
) -> tuple[Path, Literal["written", "updated", "unchanged"]]:
    """Write the ensemble into the repository; return its directory and what was done.

    A new model appears whole, by one rename; a changed one changes by one replacement of its ``config.pbtxt``.

    Args:
        checked: The pipeline.
        repository: Where the models lie that it was checked against.
        source: Name of the pipeline file, for the head of the config.

    Raises:
        ConfigError: A model of that name is there which this command did not write, or which was edited since.
    """
    directory = repository / checked.spec.name
    text = _sealed(render(ensemble_config(checked)), source)
    if directory.exists():
        _refuse_foreign(directory)
        done = "unchanged" if (directory / CONFIG_FILE).read_text(encoding="utf-8") == text else "updated"
        if done == "updated":
            _replace(directory / CONFIG_FILE, text)
        (directory / "1").mkdir(exist_ok=True)
        return directory, done
    scratch = Path(tempfile.mkdtemp(prefix=f".{checked.spec.name}-", dir=repository))
    try:
        (scratch / "1").mkdir()
        (scratch / "1" / ".gitkeep").touch()  # Triton wants the directory, git would drop it
        (scratch / CONFIG_FILE).write_text(text, encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp makes it private; the server may run as somebody else
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory, "written"


def _ensemble_names(checked: CheckedPipeline) -> dict[str, str]:
    spec = checked.spec
    names = {tensor: public for side in (spec.inputs, spec.outputs) for public, tensor in side.items()}
    taken = {*spec.inputs, *spec.outputs, *checked.tensors}
    for tensor in checked.tensors:
        if tensor in names:
            continue
        name = tensor
        while name in names.values() or (name != tensor and name in taken):
            name += "_inner"
        names[tensor] = name
    return names


def _sealed(body: str, source: str) -> str:
    name = "".join(character if character.isprintable() else "?" for character in source)
    return f"{_MARK}{name}: edit that file and run the command again.\n{_SEAL}{_digest(body)}\n{body}"


def _refuse_foreign(directory: Path) -> None:
    path = directory / CONFIG_FILE
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    mark, _, rest = text.partition("\n")
    seal, _, body = rest.partition("\n")
    if not mark.startswith(_MARK) or not seal.startswith(_SEAL):
        raise ConfigError(
            f"{directory} holds a model that 'triton-router pipeline' did not write; it is left as it is",
            hint="choose another 'name', or remove that directory if nobody needs it",
        )
    if seal.removeprefix(_SEAL) != _digest(body):
        raise ConfigError(
            f"{path} was edited after 'triton-router pipeline' wrote it; it is left as it is",
            hint="bring the edit into the pipeline file, remove the directory, and run the command again",
        )


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".config-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(path.stat().st_mode & 0o777)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
