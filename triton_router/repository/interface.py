"""The tensors that a model declares, and when two declarations agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triton_router.repository.dependencies import model_directory
from triton_router.repository.model_config import kserve_type, read

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.repository.dependencies import RepositoryModel


@dataclass(frozen=True, slots=True)
class TensorType:
    """What a model declares of one tensor.

    Attributes:
        datatype: KServe name.
        shape: Whole shape, -1 for a dynamic dimension; a batching model's batch dimension stands first.
        optional: Whether a request may leave it out.
    """

    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.datatype} [{', '.join(str(dim) for dim in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of one model, as its ``config.pbtxt`` declares them."""

    max_batch_size: int
    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]


def read_interface(repository: Path, model: RepositoryModel) -> Interface:
    """Return the interface that a model's ``config.pbtxt`` declares.

    A router may leave its inputs and outputs to be completed from its targets; so they are here.

    Raises:
        NotFoundError: There is no such model, or no ``config.pbtxt``.
        ConfigError: It is not valid, or a tensor has no usable datatype.
    """
    config = read(model_directory(repository, model.name))
    if not config.input and model.targets:
        config = read(model_directory(repository, model.targets[0]))
    batch = (-1,) if config.max_batch_size > 0 else ()
    return Interface(
        config.max_batch_size,
        {t.name: TensorType(kserve_type(t.data_type), (*batch, *t.dims), t.optional) for t in config.input},
        {t.name: TensorType(kserve_type(t.data_type), (*batch, *t.dims)) for t in config.output},
    )


def compatible(left: TensorType, right: TensorType) -> bool:
    """Compare as Triton does when it loads an ensemble: whole shapes, -1 agreeing with anything."""
    return (
        left.datatype == right.datatype
        and len(left.shape) == len(right.shape)
        and all(a == b or -1 in {a, b} for a, b in zip(left.shape, right.shape, strict=True))
    )


def narrower(left: TensorType, right: TensorType) -> TensorType:
    """Return what satisfies both of two compatible declarations."""
    shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape, strict=True))
    return TensorType(left.datatype, shape, left.optional and right.optional)
