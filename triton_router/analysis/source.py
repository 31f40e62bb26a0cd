"""Where a model comes from: an ``.onnx`` file, a ``.pt2`` file, or ``package.module:factory``.

This runs in the caller's own process, so it reads names, sizes and hashes and never interprets a model.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.machinery
import json
import pkgutil
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from triton_router.errors import ModelFileError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind = Literal["onnx", "pt2", "factory"]

MAX_BYTES: dict[str, int] = {"onnx": 2 * 1024**3 - 1, "pt2": 8 * 1024**3}
"""Largest file taken of each kind. 2 GiB is what a protobuf can hold; beyond it ONNX uses external data."""

_SIDE_FILE_BYTES = 1024**2
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_TORCH_HINT = (
    "export it once in Python, `torch.export.save(torch.export.export(model.eval(), example_inputs), 'model.pt2')` "
    "or `torch.onnx.export(model, example_inputs, dynamo=True).save('model.onnx')`, "
    "or give `package.module:factory`, a function that returns (model, example_inputs)"
)
_HINTS = {
    ".pt": _TORCH_HINT,
    ".pth": _TORCH_HINT,
    ".bin": _TORCH_HINT,
    ".ckpt": _TORCH_HINT,
    ".safetensors": "weights alone have no graph; write a function that builds the module, loads them and returns "
    "(model, example_inputs), and give it as `package.module:factory`",
    ".torchscript": _TORCH_HINT,
    ".tflite": "convert it once: pip install tf2onnx && python -m tf2onnx.convert --tflite MODEL --output model.onnx",
    ".pb": "convert it once: pip install tf2onnx && python -m tf2onnx.convert --saved-model DIR --output model.onnx",
    ".h5": "convert it once with tf2onnx, which writes model.onnx",
    ".keras": "in Keras: model.export('model.onnx', format='onnx')",
    ".pkl": "export it to ONNX; for scikit-learn: skl2onnx.to_onnx(model, sample)",
    ".joblib": "export it to ONNX; for scikit-learn: skl2onnx.to_onnx(model, sample)",
    ".mlpackage": "Core ML packages are made here, not read; add the model they were made from",
    ".mlmodel": "Core ML models are made here, not read; add the model they were made from",
    ".plan": "TensorRT plans are made here, not read; add the model they were made from",
    ".engine": "TensorRT plans are made here, not read; add the model they were made from",
    ".gguf": "serve it with an LLM server of its own and route to it as a remote target",
    ".py": "give the function in it as `package.module:factory`",
}
_KINDS_HINT = "give MODEL.onnx, MODEL.pt2 or package.module:factory"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model as it was found.

    Attributes:
        kind: What it is.
        reference: What the user wrote, a path made absolute.
        path: The file; for a factory, the file of its module.
        sha256: Of that file. External data of an ``.onnx`` file and what a factory imports are not in it;
            `AnalysisReport.content_sha256` covers the former.
        bytes: Size of that file.
    """

    kind: Kind
    reference: str
    path: Path | None
    sha256: str
    bytes: int

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values; `from_json` reads them back."""
        return {**asdict(self), "path": None if self.path is None else str(self.path)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelSource:
        """Read what `to_json` wrote."""
        path = data["path"]
        return cls(
            kind=cast("Kind", data["kind"]),
            reference=str(data["reference"]),
            path=None if path is None else Path(str(path)),
            sha256=str(data["sha256"]),
            bytes=int(str(data["bytes"])),
        )


def resolve_source(text: str, *, sha256: str | None = None, max_bytes: Mapping[str, int] = MAX_BYTES) -> ModelSource:
    """Find the model that ``text`` names.

    Args:
        text: A path, or ``package.module:factory``.
        sha256: What the file's SHA-256 has to be; for a ``.pt2`` this is the permission to run its code.
        max_bytes: Largest file of each kind.

    Raises:
        NotFoundError: There is no such file or module.
        ModelFileError: It is something this project cannot take, or its hash is another one.
    """
    if "://" in text:
        raise ModelFileError(
            f"{text!r} is a URL; models are read from this machine",
            hint=f"download it first, for example: curl -fLO {text!r}",
        )
    if sha256 is not None and not _HEX.fullmatch(sha256):
        raise ModelFileError(
            f"{sha256!r} is not a SHA-256", hint="it has 64 hexadecimal digits; `sha256sum MODEL` prints it"
        )
    path = Path(text).expanduser()
    if not path.exists() and ":" in text:
        return _factory_source(text, sha256)
    return _file_source(path, sha256, max_bytes)


def module_file(module: str, *, directories: Sequence[str] = ()) -> Path | None:
    """Return the file of a dotted module without importing it or its packages; ``None`` if there is none.

    Args:
        module: Such as ``package.module``.
        directories: Searched before ``sys.path``.
    """
    first, *rest = module.split(".")
    spec = _find_top(first, directories)
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = _find_inside(f"{spec.name}.{name}", list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return Path(spec.origin)


def _find_top(name: str, directories: Sequence[str]) -> importlib.machinery.ModuleSpec | None:
    """Find a module as an import with ``directories`` in front of ``sys.path`` would."""
    for finder in sys.meta_path:
        path = [*directories, *sys.path] if finder is importlib.machinery.PathFinder else None
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    return None


def _find_inside(name: str, locations: Sequence[str]) -> importlib.machinery.ModuleSpec | None:
    """Find a submodule; Python's own PathFinder wants the parents of a namespace package imported."""
    namespace = importlib.machinery.ModuleSpec(name, None, is_package=True)
    portions: list[str] = []
    for location in locations:
        finder = pkgutil.get_importer(location)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec is not None else []
    namespace.submodule_search_locations = portions
    return namespace if portions else None


def _factory_source(text: str, sha256: str | None) -> ModelSource:
    if not _FACTORY.fullmatch(text):
        raise ModelFileError(
            f"{text!r} is neither a file nor package.module:factory",
            hint="write the module with dots and without .py, for example models.encoder:build",
        )
    module = text.partition(":")[0]
    path = module_file(module, directories=[str(Path.cwd())])
    if path is None:
        raise NotFoundError(
            f"there is no Python module {module!r} in {Path.cwd()} or in the installed packages",
            hint="run the command in the directory that holds it, or set PYTHONPATH, and check the spelling",
        )
    digest = _digest(path)
    _compare(path, digest, sha256)
    return ModelSource("factory", text, path, digest, path.stat().st_size)


def _file_source(path: Path, sha256: str | None, max_bytes: Mapping[str, int]) -> ModelSource:
    _require_file(path)
    kind = _kind_of(path)
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError(f"{path} is empty", hint="export or download the model again")
    if size > max_bytes[kind]:
        raise ModelFileError(
            f"{path} has {size} bytes, more than the {max_bytes[kind]} that a .{kind} file may have",
            hint="save an ONNX model with external data, or make the model smaller",
        )
    digest = _digest(path)
    if kind == "pt2":
        _permit_pt2(path, digest, sha256)
    else:
        _compare(path, digest, sha256)
    resolved = path.resolve()
    return ModelSource(kind, str(resolved), resolved, digest, size)


def _require_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(str(found) for found in path.glob("*") if found.suffix in {".onnx", ".pt2"})
        hint = _HINTS.get(path.suffix) or (f"did you mean {inside[0]}?" if inside else _KINDS_HINT)
        raise ModelFileError(f"{path} is a directory, not a model file", hint=hint)
    if not path.exists():
        names = [found.name for found in path.parent.glob("*")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else _KINDS_HINT
        raise NotFoundError(f"there is no file {path}", hint=hint)
    if not path.is_file():
        raise ModelFileError(f"{path} is not a regular file", hint=_KINDS_HINT)


def _kind_of(path: Path) -> Literal["onnx", "pt2"]:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    if suffix == ".pt2":
        return "pt2"
    shown = f"files of type {suffix}" if suffix else "files without a suffix"
    raise ModelFileError(f"{path}: {shown} cannot be added", hint=_HINTS.get(suffix, _KINDS_HINT))


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _compare(path: Path, digest: str, wanted: str | None) -> None:
    if wanted is not None and wanted.lower() != digest:
        raise ModelFileError(
            f"the SHA-256 of {path} is {digest}, not {wanted.lower()}",
            hint="the file is not the one that the hash was made for; get it again from where you trust it",
        )


def _permit_pt2(path: Path, digest: str, wanted: str | None) -> None:
    if wanted is not None:
        _compare(path, digest, wanted)
        return
    recorded = list(_recorded_hashes(path))
    if not recorded:
        raise ModelFileError(
            f"{path} is refused: a .pt2 file runs code when it is loaded, and nothing vouches for this one",
            hint=f"if you made it or trust where it is from, add: --sha256 {digest}",
        )
    for found in recorded:
        _compare(path, digest, found)


def _recorded_hashes(path: Path) -> Iterator[str]:
    """Yield what files beside a ``.pt2`` say of its hash: ``NAME.sha256`` and ``manifest.json``."""
    side = path.with_name(path.name + ".sha256")
    for line in _read_side_file(side).splitlines():
        digest, _, name = line.strip().partition(" ")
        if _HEX.fullmatch(digest) and name.strip().removeprefix("*") in {"", path.name}:
            yield digest
    yield from _manifest_hashes(path.with_name("manifest.json"), path.name, None)
    # In a model repository the manifest of a target lies above its version directories.
    if path.parent.name.isdigit():
        yield from _manifest_hashes(path.parent.parent / "manifest.json", path.name, path.parent.name)


def _manifest_hashes(manifest: Path, name: str, version: str | None) -> Iterator[str]:
    text = _read_side_file(manifest)
    if not text:
        return
    try:
        data: object = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{manifest} is not valid JSON: {error}", hint="repair or remove it") from error
    versions = _mapping(_mapping(data).get("versions"))
    holders = [_mapping(data)] if version is None else []
    holders += [_mapping(held) for key, held in versions.items() if version in {None, key}]
    for holder in holders:
        digest = _mapping(_mapping(holder.get("files")).get(name)).get("sha256")
        if isinstance(digest, str) and _HEX.fullmatch(digest):
            yield digest


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _read_side_file(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > _SIDE_FILE_BYTES:
        raise ModelFileError(f"{path} is larger than {_SIDE_FILE_BYTES} bytes", hint="it should be a short text")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}", hint="repair or remove it") from error
