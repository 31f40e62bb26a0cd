"""The short YAML of a pipeline: which models run one after another, and which tensors pass between them.

Example::

    name: minilm-embed
    inputs: {TEXT: text}              # what a client sends: the tensor it becomes
    outputs: {embedding: embedding}   # what a client gets: the tensor it is
    steps:
      - model: minilm-tokenize
        inputs: {TEXT: text}          # the model's input: the tensor it reads
        outputs: {input_ids: ids, attention_mask: mask}   # the model's output: the tensor it makes
      - model: minilm
        inputs: {input_ids: ids, attention_mask: mask}
        outputs: {last_hidden_state: hidden}
      - model: minilm-pool
        inputs: {hidden: hidden, mask: mask}
        outputs: {embedding: embedding}

Names on the left belong to a client or a model, names on the right to the pipeline. Steps run as soon as their
tensors are there, whatever their order. ``version: 2`` pins a step to one version, ``max_batch_size: 4`` at the
top takes less than the smallest of the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triton_router.config.loading import load_yaml
from triton_router.config.router_config import NAME_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

    from triton_router.config.loading import Document

MAX_PIPELINE_BYTES = 256 * 1024

_ModelName = Annotated[str, Field(pattern=NAME_PATTERN)]
_TensorName = Annotated[str, Field(min_length=1, max_length=256)]
_TensorMap = Annotated[dict[_TensorName, _TensorName], Field(min_length=1, max_length=256)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StepSpec(_Settings):
    """One model of the pipeline.

    Attributes:
        model: A model of the repository: plain, routed, or itself an ensemble.
        version: The version that serves this step; absent means the newest that Triton serves.
        inputs: The model's inputs, each with the tensor it reads.
        outputs: Those of the model's outputs that are used, each with the tensor it makes.
    """

    model: _ModelName
    version: Annotated[int, Field(ge=1)] | None = None
    inputs: _TensorMap
    outputs: _TensorMap


class PipelineSpec(_Settings):
    """A whole pipeline.

    Attributes:
        name: The ensemble that clients call.
        inputs: What clients send, each with the tensor it becomes.
        outputs: What clients get, each with the tensor it is.
        steps: The models.
        max_batch_size: Largest batch; absent means the smallest of the steps'.
    """

    name: _ModelName
    inputs: _TensorMap
    outputs: _TensorMap
    steps: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=256, strict=False)]
    max_batch_size: Annotated[int, Field(ge=0)] | None = None


def load_pipeline(path: Path) -> tuple[Document, PipelineSpec]:
    """Read a pipeline file; the document goes along because it knows the line of every key.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is not a pipeline; the message names line and key.
    """
    document = load_yaml(path, max_bytes=MAX_PIPELINE_BYTES)
    return document, validate_pipeline(document)


def validate_pipeline(document: Document) -> PipelineSpec:
    """Validate a parsed document. Errors as `load_pipeline`."""
    if not isinstance(document.data, dict):
        raise document.error(
            (), "is empty or not a mapping", hint="begin with 'name:', 'inputs:', 'outputs:', 'steps:'"
        )
    try:
        return PipelineSpec.model_validate(document.data)
    except ValidationError as error:
        raise document.validation_error(
            error,
            hint="a pipeline has name, inputs, outputs and steps; see: triton-router pipeline --help",
            settings=PipelineSpec,
        ) from error
