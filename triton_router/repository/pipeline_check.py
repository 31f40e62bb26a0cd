"""Everything that is wrong with a pipeline, found before Triton sees it, with the line where it stands."""

from __future__ import annotations

import difflib
import graphlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.errors import ConfigError, NotFoundError, TritonRouterError
from triton_router.repository.dependencies import describe, survey
from triton_router.repository.interface import compatible, narrower, read_interface

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from triton_router.config.loading import Document
    from triton_router.repository.interface import Interface, TensorType
    from triton_router.repository.pipeline_spec import PipelineSpec, StepSpec

    KeyPath = tuple[str | int, ...]


@dataclass(slots=True)
class PipelineTensor:
    """One tensor of the pipeline.

    Attributes:
        name: Its name in the pipeline file.
        type: What its maker declares; for a pipeline input, what its readers agree on.
        maker: Who makes it, in words.
        readers: Who reads it, in words.
    """

    name: str
    type: TensorType
    maker: str
    readers: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class CheckedPipeline:
    """A pipeline that Triton will accept.

    Attributes:
        spec: What the file says.
        tensors: Every tensor by its name in the file, in the order of its first mention.
        max_batch_size: What the ensemble declares; 0 if a step does not batch, shapes then hold the batch.
    """

    spec: PipelineSpec
    tensors: dict[str, PipelineTensor]
    max_batch_size: int


def check_pipeline(document: Document, spec: PipelineSpec, repository: Path) -> CheckedPipeline:
    """Check a pipeline against the models of a repository.

    Raises:
        NotFoundError: There is no such repository.
        ConfigError: The first thing that is wrong, with its line and what to do.
    """
    known = sorted(survey(repository))
    interfaces = [_interface_of(document, index, step, repository, known) for index, step in enumerate(spec.steps)]
    for index, (step, interface) in enumerate(zip(spec.steps, interfaces, strict=True)):
        _check_names(document, index, step, interface)
    tensors = _made(document, spec, interfaces)
    _check_reads(document, spec, interfaces, tensors)
    _check_ends(document, spec, tensors)
    _check_cycle(document, spec)
    _check_recursion(document, spec, repository)
    return CheckedPipeline(spec, tensors, _batch_size(document, spec, interfaces))


def _interface_of(document: Document, index: int, step: StepSpec, repository: Path, known: Sequence[str]) -> Interface:
    path = ("steps", index, "model")
    if step.model not in known:
        raise document.error(
            path, f"model {step.model!r} is not in the repository {repository}", hint=_choices(step.model, known)
        )
    try:
        model = describe(repository, step.model)
        interface = read_interface(repository, model)
    except TritonRouterError as error:
        raise document.error(path, error.message, hint=error.hint) from error
    if not interface.inputs or not interface.outputs:
        raise document.error(
            path,
            f"the config.pbtxt of {step.model!r} declares no inputs or no outputs, so the pipeline cannot be checked",
            hint="write its input and output sections (the running server shows them at /v2/models/MODEL/config)",
        )
    if step.version is not None and step.version not in model.versions:
        has = ", ".join(str(version) for version in model.versions) or "none"
        raise document.error(
            ("steps", index, "version"),
            f"model {step.model!r} has no version {step.version}",
            hint=f"it has: {has}; leave 'version' out for the newest that Triton serves",
        )
    return interface


def _check_names(document: Document, index: int, step: StepSpec, interface: Interface) -> None:
    """Every name on the left of a map is the model's, and every required input is mapped."""
    for kind, mapped, declared in (
        ("input", step.inputs, interface.inputs),
        ("output", step.outputs, interface.outputs),
    ):
        for name in mapped:
            if name not in declared:
                raise document.error(
                    ("steps", index, f"{kind}s", name),
                    f"model {step.model!r} has no {kind} {name!r}",
                    hint=_choices(name, list(declared)),
                )
    missing = [name for name, kind in interface.inputs.items() if not kind.optional and name not in step.inputs]
    if missing:
        raise document.error(
            ("steps", index, "inputs"),
            f"required input {missing[0]!r} ({interface.inputs[missing[0]]}) of model {step.model!r} is not mapped",
            hint=f"add '{missing[0]}: TENSOR' here",
        )


def _made(document: Document, spec: PipelineSpec, interfaces: Sequence[Interface]) -> dict[str, PipelineTensor]:
    """Return every tensor with its maker; none is made twice."""
    tensors: dict[str, PipelineTensor] = {}

    def add(path: KeyPath, name: str, kind: TensorType, maker: str) -> None:
        if name in tensors:
            raise document.error(
                path,
                f"tensor {name!r} is made twice: by {tensors[name].maker} and by {maker}",
                hint="give one of them another name",
            )
        tensors[name] = PipelineTensor(name, kind, maker)

    for public, name in spec.inputs.items():
        add(("inputs", public), name, _input_type(document, spec, interfaces, public), f"pipeline input {public!r}")
    for index, (step, interface) in enumerate(zip(spec.steps, interfaces, strict=True)):
        for output, name in step.outputs.items():
            path = ("steps", index, "outputs", output)
            add(path, name, interface.outputs[output], _output_words(index, step, output))
    return tensors


def _input_type(document: Document, spec: PipelineSpec, interfaces: Sequence[Interface], public: str) -> TensorType:
    """Return what all readers of a pipeline input accept: the narrowest of their shapes."""
    result: TensorType | None = None
    for step, interface in zip(spec.steps, interfaces, strict=True):
        for name, tensor in step.inputs.items():
            if tensor == spec.inputs[public]:
                wanted = interface.inputs[name]
                if result is None:
                    result = wanted
                elif compatible(result, wanted):  # what disagrees is reported where it is read
                    result = narrower(result, wanted)
    if result is None:
        raise document.error(
            ("inputs", public), f"pipeline input {public!r} is read by no step", hint="map it to a step, or remove it"
        )
    return result


def _check_reads(
    document: Document, spec: PipelineSpec, interfaces: Sequence[Interface], tensors: Mapping[str, PipelineTensor]
) -> None:
    """Every tensor that a step reads is made by somebody, in the type and shape that the step takes."""
    for index, (step, interface) in enumerate(zip(spec.steps, interfaces, strict=True)):
        for name, tensor_name in step.inputs.items():
            path = ("steps", index, "inputs", name)
            tensor = tensors.get(tensor_name)
            if tensor is None:
                raise document.error(
                    path, f"nothing makes tensor {tensor_name!r}", hint=_choices(tensor_name, list(tensors))
                )
            wanted = interface.inputs[name]
            reader = f"input {name!r} of step {index + 1} ({step.model})"
            if tensor.type.datatype != wanted.datatype:
                raise document.error(
                    path,
                    f"tensor {tensor_name!r} is {tensor.type.datatype} from {tensor.maker}, "
                    f"but {reader} takes {wanted.datatype}",
                    hint="map another tensor, or put a model between them that converts it",
                )
            if not compatible(tensor.type, wanted):
                raise document.error(
                    path,
                    f"tensor {tensor_name!r} is {tensor.type} from {tensor.maker}, but {reader} takes {wanted}",
                    hint="shapes agree when each dimension is equal or -1; the first is the batch of a batching model",
                )
            tensor.readers.append(reader)


def _check_ends(document: Document, spec: PipelineSpec, tensors: Mapping[str, PipelineTensor]) -> None:
    """Every pipeline output is made by a step, and every tensor that is made is used."""
    for public, name in spec.outputs.items():
        path = ("outputs", public)
        tensor = tensors.get(name)
        if tensor is None:
            raise document.error(path, f"nothing makes tensor {name!r}", hint=_choices(name, list(tensors)))
        if name in spec.inputs.values():
            raise document.error(
                path,
                f"tensor {name!r} comes straight from {tensor.maker}; Triton returns only what a step makes",
                hint="remove this output: the client has that tensor already",
            )
        if public in spec.inputs:
            raise document.error(
                path,
                f"{public!r} names an input and an output; in a Triton ensemble these would be one tensor",
                hint="rename one of them",
            )
        if f"pipeline output {public!r}" not in tensor.readers:
            tensor.readers.append(f"pipeline output {public!r}")
    _check_unused(document, spec, tensors)


def _check_unused(document: Document, spec: PipelineSpec, tensors: Mapping[str, PipelineTensor]) -> None:
    outputs = list(spec.outputs.items())
    for position, (public, name) in enumerate(outputs):
        first = next(other for other, tensor in outputs if tensor == name)
        if first != public and position:
            raise document.error(
                ("outputs", public),
                f"tensor {name!r} goes out as {first!r} already; a Triton ensemble gives each tensor one name",
                hint="keep one of the two",
            )
    for index, step in enumerate(spec.steps):
        for output, name in step.outputs.items():
            if not tensors[name].readers:
                raise document.error(
                    ("steps", index, "outputs", output),
                    f"tensor {name!r} is made by {tensors[name].maker} and used by nobody",
                    hint="remove this line, or read the tensor in a step or in 'outputs'",
                )


def _check_cycle(document: Document, spec: PipelineSpec) -> None:
    makers = {name: index for index, step in enumerate(spec.steps) for name in step.outputs.values()}
    graph = {
        index: {makers[name] for name in step.inputs.values() if name in makers}
        for index, step in enumerate(spec.steps)
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle: list[int] = error.args[1]
        words = " -> ".join(f"step {index + 1} ({spec.steps[index].model})" for index in cycle)
        raise document.error(
            ("steps", cycle[0]), f"the steps wait for each other: {words}", hint="let one of them read another tensor"
        ) from error


def _check_recursion(document: Document, spec: PipelineSpec, repository: Path) -> None:
    """Refuse a pipeline that calls itself through its steps, their steps and their targets."""
    for index, step in enumerate(spec.steps):
        seen: set[str] = set()
        queue = [step.model]
        while queue:
            name = queue.pop()
            if name == spec.name:
                raise document.error(
                    ("steps", index, "model"),
                    f"pipeline {spec.name!r} would call itself through {step.model!r}",
                    hint="rename the pipeline, or leave that step out",
                )
            if name not in seen:
                seen.add(name)
                queue += _needs(repository, name)


def _needs(repository: Path, name: str) -> Iterable[str]:
    try:
        return describe(repository, name).needs
    except (NotFoundError, ConfigError):  # a step's own targets are not this pipeline's to judge
        return ()


def _batch_size(document: Document, spec: PipelineSpec, interfaces: Sequence[Interface]) -> int:
    smallest = min(interface.max_batch_size for interface in interfaces)
    if spec.max_batch_size is None:
        return max(0, smallest)
    if spec.max_batch_size > smallest:
        model = next(
            step.model
            for step, interface in zip(spec.steps, interfaces, strict=True)
            if interface.max_batch_size == smallest
        )
        raise document.error(
            ("max_batch_size",),
            f"{spec.max_batch_size} is more than model {model!r} takes ({smallest})",
            hint="lower it, or leave it out",
        )
    return spec.max_batch_size


def _output_words(index: int, step: StepSpec, output: str) -> str:
    return f"output {output!r} of step {index + 1} ({step.model})"


def _choices(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"
    return f"did you mean {close[0]!r}? There is: {listed}" if close else f"there is: {listed}"
