"""Read an ONNX file that may be corrupt or hostile, and refuse it with a reason if it is.

Meant for a child process with limits: the parsers below are C++ and may be given anything.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, TensorProto, external_data_helper

from triton_router.analysis.onnx_checks import check_model, shown
from triton_router.analysis.onnx_graph import tensor_bytes, tensors
from triton_router.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model", "fetch the file itself: git lfs pull"),
    (b"PK\x03\x04", "a zip archive", "a PyTorch file needs the suffix .pt2; unpack other archives first"),
    (b"<", "HTML or XML, not a model", "the download gave a web page; get the raw file"),
    (b"\x80", "a Python pickle", "export the model to ONNX with torch.onnx.export"),
    (b"\x89HDF", "an HDF5 file", "export the Keras model to ONNX: model.export('model.onnx', format='onnx')"),
)


@dataclass(frozen=True, slots=True)
class OnnxLimits:
    """What an ONNX model may declare.

    Attributes:
        file_bytes: Size of the ``.onnx`` file.
        external_bytes: Size of all its external data.
        tensor_bytes: Size of any one tensor whose shape is known for a batch of any size: a stored one, or
            one that an operator such as ConstantOfShape, Expand, Tile or Range would make.
        nodes: Operators, with subgraphs, and with local functions expanded.
        depth: Nesting of subgraphs.
        ir_version: Newest file format. Like the operator set, what onnxruntime 1.31 loads.
        opset: Newest operator set of the default domain.
        domains: Operator domains that are taken besides ONNX's own.
    """

    file_bytes: int = 2 * 1024**3 - 1
    external_bytes: int = 16 * 1024**3
    tensor_bytes: int = 4 * 1024**3
    nodes: int = 200_000
    depth: int = 16
    ir_version: int = 13
    opset: int = 26
    domains: frozenset[str] = frozenset({"ai.onnx.ml", "com.microsoft"})


def load_checked(
    path: Path, limits: OnnxLimits | None = None, *, sha256: str | None = None, load_external: bool = True
) -> ModelProto:
    """Read and check an ONNX model.

    Args:
        path: The ``.onnx`` file; external data is looked for in its directory and nowhere else.
        limits: What it may declare.
        sha256: If given, what the hash of exactly the bytes that are parsed has to be.
        load_external: Put external data into the returned message.

    Raises:
        ModelFileError: It is not an ONNX model, is damaged, or declares something that is not allowed.
    """
    limits = limits or OnnxLimits()
    data = _read(path, limits.file_bytes)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelFileError(
            f"{path} changed while it was being added", hint="run the command again when nothing writes to it"
        )
    model = _parse(path, data)
    del data
    check_model(path, model, limits)
    files = _check_external_data(path, model, limits)
    if load_external and files:
        _load_external_data(path, model)
    return model


def external_files(path: Path, model: ModelProto) -> dict[str, Path]:
    """Return the external data files of a model by the location that it names.

    Raises:
        ModelFileError: One is missing or outside the model's directory.
    """
    return {location: _contained(path, location) for location in _locations(model)}


def content_hash(path: Path, files: dict[str, Path]) -> tuple[str, int]:
    """Return one SHA-256 and the size of a model file and its external data; without any, the file's own."""
    total = hashlib.sha256(path.read_bytes())
    size = path.stat().st_size
    for location, file in sorted(files.items()):
        with file.open("rb") as opened:
            total.update(f"\n{location} {hashlib.file_digest(opened, 'sha256').hexdigest()}".encode())
        size += file.stat().st_size
    return total.hexdigest(), size


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ModelFileError(
                    f"{path} has {size} bytes, more than {limit}",
                    hint="save the model with external data: onnx.save(model, path, save_as_external_data=True)",
                )
            return file.read(limit + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}", hint="check path and permissions") from error


def _parse(path: Path, data: bytes) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _not_onnx(path, data, "its protobuf is damaged or cut off") from error
    if not model.HasField("graph") or model.ir_version <= 0:
        raise _not_onnx(path, data, "it holds no graph or no format version")
    return model


def _not_onnx(path: Path, data: bytes, why: str) -> ModelFileError:
    for start, what, hint in _FOREIGN:
        if data.startswith(start):
            return ModelFileError(f"{path} is {what}", hint=hint)
    return ModelFileError(
        f"{path} is not a readable ONNX model: {why}",
        hint="export or download it again and compare its size and SHA-256 with the original",
    )


def _locations(model: ModelProto) -> set[str]:
    return {_external_info(tensor)["location"] for tensor in _external(model)}


def _external(model: ModelProto) -> Iterator[TensorProto]:
    return (tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL)


def _external_info(tensor: TensorProto) -> dict[str, str]:
    info = {entry.key: entry.value for entry in tensor.external_data}
    for key in ("offset", "length"):
        if not info.setdefault(key, "0").isascii() or not info[key].isdigit():
            raise ModelFileError(
                f"tensor {shown(tensor.name)} has the external data {key} {shown(info[key])}",
                hint="export the model again; offset and length are byte counts",
            )
    info.setdefault("location", "")
    return info


def _check_external_data(path: Path, model: ModelProto, limits: OnnxLimits) -> dict[str, Path]:
    files = external_files(path, model)
    sizes = {location: file.stat().st_size for location, file in files.items()}
    if sum(sizes.values()) > limits.external_bytes:
        raise ModelFileError(
            f"the external data of {path} has {sum(sizes.values())} bytes, more than {limits.external_bytes}",
            hint="this is larger than what is built here; make the model smaller",
        )
    for tensor in _external(model):
        info = _external_info(tensor)
        needed = tensor_bytes(tensor.data_type, tensor.dims)
        length = int(info["length"]) or needed
        if int(info["offset"]) + length > sizes[info["location"]] or length != needed:
            raise ModelFileError(
                f"tensor {shown(tensor.name)} needs {needed} bytes from {shown(info['location'])}, "
                f"which does not hold them at offset {info['offset']}",
                hint="the data file is cut off or belongs to another export; copy both files again",
            )
    return files


def _contained(path: Path, location: str) -> Path:
    """Return the external data file, which must lie in the model's directory without any link."""
    base = path.resolve().parent
    relative = Path(location)
    hint = "external data must be a plain file beside the .onnx file; export the model again into one directory"
    if not location or relative.is_absolute() or ".." in relative.parts or "\\" in location or "\0" in location:
        raise ModelFileError(f"{path} names external data at {shown(location)}, outside its own directory", hint=hint)
    target = base
    for part in relative.parts:
        target /= part
        if target.is_symlink():
            raise ModelFileError(f"the external data {shown(location)} of {path} is a symbolic link", hint=hint)
    if not target.is_file():
        raise ModelFileError(
            f"the external data {shown(location)} of {path} is missing",
            hint=f"copy it to {base}; an ONNX model with external data is more than one file",
        )
    return target


def _load_external_data(path: Path, model: ModelProto) -> None:
    base = str(path.resolve().parent)
    try:
        for tensor in list(_external(model)):
            external_data_helper.load_external_data_for_tensor(tensor, base)
    except (OSError, ValueError, EncodeError, onnx.checker.ValidationError) as error:
        raise ModelFileError(
            f"the external data of {path} cannot be loaded: {shown(str(error))}",
            hint="copy the .onnx file and its data again from the same export",
        ) from error
