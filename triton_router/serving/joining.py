"""Whether models can join a routed model that serves: whatever clients may ask of it, they have to take.

Their ``config.pbtxt`` is read by libraries that would stay in the router's memory. So that is done in a process of its
own, and only when an edit brings a model that was not there before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triton_router.config.router_config import ROUTER_FILE
from triton_router.errors import ConfigError, TritonRouterError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from triton_router.serving.complete import Signature

_PATIENCE_S = 30.0
_ENTRY = "from triton_router.serving.joining import answer; answer()"
_ROUTED = "the routed model"


def refuse_unsuitable(
    repository: Path, new: Sequence[str], before: Collection[str], model_config: dict[str, Any], *, streaming: bool
) -> str:
    """Do nothing if models can serve what a routed model has been loaded to serve.

    A model that cannot be looked at, because it lies in another repository or declares nothing, passes.

    Returns:
        Why nobody could look, in words; "" if somebody has.

    Args:
        repository: Where the routed model's directory lies.
        new: Names of the models.
        before: Those of the targets that it has already.
        model_config: The routed model's ``config.pbtxt``, completed.
        streaming: Whether it may answer several times.

    Raises:
        ConfigError: One is not there, or takes or gives something else.
    """
    missing = [model for model in new if not (repository / model).is_dir()]
    if missing and all((repository / model).is_dir() for model in before):
        raise ConfigError(
            f"target model {missing[0]!r} is not in {repository}",
            hint=f"add it before the edit of {ROUTER_FILE}, or correct the name",
        )
    there = [model for model in new if model not in missing]
    if not there:
        return ""
    return _ask({"repository": str(repository), "models": there, "config": model_config, "streaming": streaming})


def answer() -> None:
    """Read what is asked from stdin and write what is wrong to stdout: the entry of the process."""
    asked = json.load(sys.stdin)
    try:
        compare(Path(asked["repository"]), asked["models"], asked["config"], streaming=asked["streaming"])
    except ConfigError as error:
        json.dump({"message": error.message, "hint": error.hint}, sys.stdout)
    except TritonRouterError:  # its own load says what is wrong with it
        return


def _ask(asked: dict[str, Any]) -> str:
    # In a stub process this is the interpreter that it found its libraries by, or else nothing of the kind.
    is_python = Path(sys.executable or "").name.startswith("python")
    python = sys.executable if is_python else shutil.which("python") or shutil.which("python3")
    if python is None:
        return "there is no interpreter on PATH"
    package = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            [python, "-c", _ENTRY],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(package)},
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.stdout:
        problem = json.loads(done.stdout)
        raise ConfigError(problem["message"], hint=problem["hint"])
    return ""


def compare(repository: Path, models: Sequence[str], config: dict[str, Any], *, streaming: bool) -> None:
    """Do what `refuse_unsuitable` does for models that are there."""
    from triton_router.config.router_config import RouterConfig, TargetConfig
    from triton_router.serving.complete import common_signature, refuse_decoupled, signature_of_targets

    targets = tuple(TargetConfig(name=model, model=model) for model in models)
    settings = RouterConfig(targets=targets, streaming=streaming)
    refuse_decoupled(repository, settings)
    try:
        theirs = signature_of_targets(repository, settings)
    except ConfigError:
        if len(models) > 1:
            raise
        return  # it declares nothing
    ours = _declared(config)
    common = common_signature({_ROUTED: ours, " and ".join(models): theirs})
    narrower = {
        "fewer rows in a request": common.max_batch_size < ours.max_batch_size,
        "fewer shapes of inputs": common.inputs != ours.inputs,
        "fewer outputs": len(common.outputs) < len(ours.outputs),
    }
    if any(narrower.values()):
        less = " and ".join(what for what, is_so in narrower.items() if is_so)
        raise ConfigError(
            f"target model {' and '.join(models)} has {less} than the routed model was loaded with",
            hint="reload the model with 'triton-router models load MODEL' to have it offer what all targets can",
        )


def _declared(config: dict[str, Any]) -> Signature:
    """Return what a routed model offers, as Triton passes its configuration to the stub."""
    from triton_router.serving.complete import Signature, TensorSpec

    def tensors(key: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                tensor["name"],
                tensor["data_type"],
                tuple(int(extent) for extent in tensor["dims"]),
                bool(tensor.get("optional", False)),
            )
            for tensor in config[key]
        )

    return Signature(tensors("input"), tensors("output"), int(config["max_batch_size"]))
