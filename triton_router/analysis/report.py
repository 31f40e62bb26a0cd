"""What the analysis of one model found, and how it travels as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, cast

from pydantic import TypeAdapter

# pydantic resolves the annotation when it reads a report back.
from triton_router.routing.characteristics import ModelCharacteristics  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class AnalysisReport:
    """The characteristics of a model, and the details that decide which variants can be made of it.

    Attributes:
        characteristics: What the router and the profile use.
        content_sha256: Hash of everything the model consists of, external data files included.
        content_bytes: Their size.
        operators: How often each operator occurs, subgraphs included; ``domain::Op`` outside ONNX's own.
        dynamic_dims: Axis to symbol for every input and output with a dynamic dimension; ``""`` is unnamed.
        dim_bounds: Smallest and largest size of a symbol, where the model states it.
        batch_symbol: The symbol of the batch dimension, ``""`` if the model has none.
        batchable_by_shape: Every input and output has that symbol as its dimension 0. Whether rows influence
            each other is another question, which only running the model answers.
        has_convolutions: Such a model must not be quantised dynamically.
        parameter_types: Stored numbers of each datatype (KServe names; others as ONNX or torch name them).
        flops_by_operator: The parts of ``characteristics.flop_count``.
        uncounted_operators: Operators whose cost could not be known and is not in the count.
        assumed_dims: Sizes that were assumed for dynamic dimensions when FLOPs were counted.
        custom_domains: Domains or namespaces of operators that the runtimes do not bring.
        external_files: Size of each external data file, by its path relative to the model.
        opset: ONNX operator set of the default domain, 0 for torch.
        ir_version: ONNX format version, 0 for torch.
        producer: What wrote the model.
        notes: Sentences for a reader.
    """

    characteristics: ModelCharacteristics
    content_sha256: str = ""
    content_bytes: int = 0
    operators: dict[str, int] = field(default_factory=dict[str, int])
    dynamic_dims: dict[str, dict[int, str]] = field(default_factory=dict[str, dict[int, str]])
    dim_bounds: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    batch_symbol: str = ""
    batchable_by_shape: bool = False
    has_convolutions: bool = False
    parameter_types: dict[str, int] = field(default_factory=dict[str, int])
    flops_by_operator: dict[str, int] = field(default_factory=dict[str, int])
    uncounted_operators: tuple[str, ...] = ()
    assumed_dims: dict[str, int] = field(default_factory=dict[str, int])
    custom_domains: tuple[str, ...] = ()
    external_files: dict[str, int] = field(default_factory=dict[str, int])
    opset: int = 0
    ir_version: int = 0
    producer: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values; `from_json` reads back an equal report."""
        return cast("dict[str, object]", _adapter().dump_python(self, mode="json"))

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> AnalysisReport:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: It is something else.
        """
        return _adapter().validate_python(data)


@cache
def _adapter() -> TypeAdapter[AnalysisReport]:
    return TypeAdapter(AnalysisReport)
