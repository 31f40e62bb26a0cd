"""The ``config.pbtxt`` of targets and routed models, and the ``router.yaml`` beside the latter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from triton_router.repository.model_config import model_input, model_output
from triton_router.repository.plan import BY_SUFFIX, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.repository.build.job import BatchVerdict, IoSpec

ROUTER_BACKEND = "router"
_ONNX_PARAMETERS = {"intra_op_thread_count": "0", "inter_op_thread_count": "0", "execution_mode": "0"}
"""Names and meaning of Triton's onnxruntime backend; 0 threads is one per core, mode 0 is sequential."""


@dataclass(frozen=True, slots=True)
class Served:
    """A target that goes into ``router.yaml``.

    Attributes:
        target: What kind it is.
        model: Its Triton model.
        batch: What merging requests does to its answers.
        latency: Rows of `triton_router.repository.build.job.Checks`.
    """

    target: Target
    model: str
    batch: BatchVerdict
    latency: tuple[dict[str, float], ...] = ()


def target_config(name: str, target: Target, io: IoSpec, max_batch_size: int, batch: BatchVerdict) -> ModelConfig:
    """Return the configuration of one target.

    Args:
        name: The Triton model's name.
        target: What kind it is.
        io: Inputs and outputs with full shapes.
        max_batch_size: 0 for a model that is not batched; its shapes then keep their first dimension.
        batch: Triton may merge strangers' requests only if that changes nobody's answer.
    """
    config = _config(name, target.triton_backend, io, max_batch_size)
    kind = ModelInstanceGroup.KIND_GPU if target.hardware == "gpu" else ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=1)
    if max_batch_size and batch == "independent":
        config.dynamic_batching.SetInParent()
    if target.hardware == "mps":
        config.parameters["device"].string_value = "mps"
    if target.triton_backend == "onnxruntime":
        for key, value in _ONNX_PARAMETERS.items():
            config.parameters[key].string_value = value
    return config


def routed_config(name: str, io: IoSpec, max_batch_size: int) -> ModelConfig:
    """Return the configuration of the routed model: the contract of its targets, served by the router.

    It has no dynamic batcher: that is one more thread hop for a lone request (docs/benchmarks.md), and the targets'
    own batchers see every request all the same.
    """
    config = _config(name, ROUTER_BACKEND, io, max_batch_size)
    config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=1)
    return config


def router_yaml(name: str, served: Sequence[Served], present: dict[str, Any] | None = None) -> str:
    """Return the text of ``router.yaml``.

    Args:
        name: The routed model.
        served: The targets of the newest version.
        present: The file as it is. Its settings stay; its targets of this model become ``served``; targets that
            are other models (another machine, a model added by hand) stay as they are.
    """
    settings: dict[str, Any] = dict(present or {})
    own = {f"{name}-{suffix}" for suffix in BY_SUFFIX}
    targets: list[dict[str, Any]] = list(settings.get("targets") or [])
    edited = {str(entry.get("name")): entry for entry in targets}
    new = [{**edited.get(item.target.suffix, {}), **_router_target(item)} for item in served]
    settings["targets"] = new + [entry for entry in targets if entry.get("model") not in own]
    settings.setdefault("policy", "latency")
    return yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=110)


def _router_target(item: Served) -> dict[str, Any]:
    target: dict[str, Any] = {
        "name": item.target.suffix,
        "model": item.model,
        "backend": item.target.backend,
        "variant": item.target.variant,
        "batch_independent": item.batch == "independent",
    }
    if item.target.backend != "gpu":  # there, an instance group counts for each GPU of the machine that serves it
        target["instances"] = 1
    measured = [
        {"work": int(row["work"]), "latency_ms": max(0.001, round(float(row["latency_ms"]), 3))} for row in item.latency
    ]
    return {**target, "measured_latency": measured} if measured else target


def _config(name: str, backend: str, io: IoSpec, max_batch_size: int) -> ModelConfig:
    skip = 1 if max_batch_size else 0
    return ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=max_batch_size,
        input=[model_input(spec.name, spec.datatype, spec.shape[skip:]) for spec in io.inputs],
        output=[model_output(spec.name, spec.datatype, spec.shape[skip:]) for spec in io.outputs],
    )
