"""How large the request is that is asked about: its rows, and the work of its largest input."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING

from triton_router.errors import InvalidInputError, TritonRouterError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tritonclient.grpc.model_config_pb2 import ModelConfig

    from triton_router.config.router_config import RouterConfig
    from triton_router.profiling.profile import TargetProfile
    from triton_router.routing.types import RoutingContext


def rows_of(args: argparse.Namespace, config: RouterConfig) -> int:
    """Return the rows of the request. Raises `InvalidInputError` where it would get no further than Triton."""
    shape: tuple[int, ...] | None = args.shape
    rows: int = args.batch or (shape[0] if shape else 1)
    if shape and rows != shape[0]:
        raise InvalidInputError(
            f"--batch {rows} and --shape {','.join(map(str, shape))} contradict each other",
            hint="the shape's first number is the batch; leave --batch out",
        )
    most = _most_rows(args, config)
    if most and rows > most:
        raise InvalidInputError(
            f"Triton would refuse a request of {rows} rows: {args.model!r} takes {most} at most",
            hint="ask about fewer rows, or raise max_batch_size in config.pbtxt of the targets",
        )
    return rows


def _most_rows(args: argparse.Namespace, config: RouterConfig) -> int:
    """Return the rows that a request may have: as the routed model says, or else its targets; 0 if nobody does."""
    declared = [read.max_batch_size for read in _configs(args.repository, _models(config))]
    own = [read.max_batch_size for read in _configs(args.repository, [args.model])]
    return next((most for most in own if most), 0) or min((most for most in declared if most), default=0)


def _configs(repository: Path, models: Sequence[str]) -> list[ModelConfig]:
    """Return the config.pbtxt of those models that have one that can be read."""
    if find_spec("tritonclient") is None:  # it brings the message types of config.pbtxt, with the extras onnx and serve
        return []
    from triton_router.repository.model_config import read

    found: list[ModelConfig] = []
    for model in models:
        with suppress(TritonRouterError):
            found.append(read(repository / model))
    return found


def refuse_what_triton_would(args: argparse.Namespace, config: RouterConfig) -> None:
    """Do nothing if a target takes such a request, or if nobody says what it takes.

    Raises:
        InvalidInputError: No input has such a shape, or none holds strings.
    """
    found = next((read for read in _configs(args.repository, [args.model, *_models(config)]) if read.input), None)
    if found is None:
        return
    from triton_router.repository.model_config import string_inputs

    if args.text_bytes and not string_inputs(found):
        raise InvalidInputError(
            f"no input of {args.model!r} holds strings, so --text-bytes means nothing", hint="leave it out"
        )
    shapes = {tensor.name: ([-1] if found.max_batch_size else []) + list(tensor.dims) for tensor in found.input}
    if args.shape and not any(_fits(args.shape, shape) for shape in shapes.values()):
        raise InvalidInputError(
            f"Triton would refuse it: no input of {args.model!r} has a shape such as {','.join(map(str, args.shape))}",
            hint="its inputs are " + "; ".join(f"{name} {shape}" for name, shape in shapes.items()),
        )


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        extent in {-1, asked} for asked, extent in zip(shape, declared, strict=True)
    )


def absent_models(args: argparse.Namespace, config: RouterConfig) -> list[str]:
    """Return which targets' models are not in the repository, for people."""
    return [
        f"there is no model {target.model!r} in {args.repository}: unless another repository of the server has it, "
        f"target {target.name!r} gets no requests"
        for target in config.targets
        if not (args.repository / target.model).is_dir()
    ]


def guesses(context: RoutingContext, profiles: Mapping[str, TargetProfile]) -> list[str]:
    """Return what to know of predictions for a request unlike all that targets have answered, for people."""
    names = [name for name, profile in profiles.items() if profile.is_guess(context.work, context.batch_size)]
    if not names:
        return []
    return [f"hardly any request like this was answered by {', '.join(names)}: what is predicted there is a guess"]


def _models(config: RouterConfig) -> list[str]:
    return [target.model for target in config.targets]


def work_of(args: argparse.Namespace, config: RouterConfig, rows: int) -> tuple[float, str]:
    """Return the work of the largest input of a request of so many rows, and what is uncertain about that."""
    shape: tuple[int, ...] | None = args.shape
    text_bytes: float = args.text_bytes or 0
    texts = _texts(args.repository, config)
    if texts:
        unsaid = f"of the strings in {texts} the bytes count, and nobody said how many: one each is assumed; "
        work = float(prod(shape)) if shape else float(rows)
        return max(work, text_bytes), "" if text_bytes else f"{unsaid}--text-bytes says it"
    if shape:
        return float(prod(shape)), ""
    per_row, note = _elements_per_row(args.repository, config)
    return rows * per_row, note


def _elements_per_row(repository: Path, config: RouterConfig) -> tuple[float, str]:
    """Return the elements of one row of the largest input, and what is uncertain about that."""
    elements = _declared_elements(repository, config)
    if elements:
        return float(elements), ""
    measured = [point.work for target in config.targets for point in target.measured_latency]
    if measured:
        return float(min(measured)), (
            f"no target's config.pbtxt declares fixed shapes: rows of {min(measured)} elements, the fewest that were "
            f"measured at build time, are assumed; --shape says it exactly"
        )
    return 1.0, "how large a row is cannot be told from the targets' config.pbtxt; --shape says it"


def _texts(repository: Path, config: RouterConfig) -> str:
    """Return the names of the inputs that hold strings, for people."""
    found = _configs(repository, _models(config))
    if not found:
        return ""
    from triton_router.repository.model_config import string_inputs

    return next((", ".join(map(repr, names)) for names in map(string_inputs, found) if names), "")


def _declared_elements(repository: Path, config: RouterConfig) -> int:
    """Return the elements of one row as a target's config.pbtxt declares them; 0 if none does."""
    for read in _configs(repository, _models(config)):
        if read.input and all(extent > 0 for tensor in read.input for extent in tensor.dims):
            return max(prod(tensor.dims) for tensor in read.input)
    return 0
