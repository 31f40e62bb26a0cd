"""Inputs of requests that were answered differently, where the operator asks for them: clients' data, on disk.

One ``.npz`` file for each, for this user alone, and a bounded number of them: the oldest is replaced.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from triton_router.files import make_private_directory, replace_private
from triton_router.telemetry.state_directory import safe, stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MOST_KEPT = 16
"""Files of one routed model and instance."""
_SUFFIX = ".npz"
_BYTES, _SHAPE = ":BYTES", ":shape"


class KeptInputs:
    """The files of one routed model's instance. `keep` is for one thread at a time.

    Args:
        path: The state directory; made when it is needed.
        model: Name of the routed model.
        instance: What keeps this instance's files apart from those of others.
    """

    def __init__(self, path: Path, model: str, instance: str) -> None:
        self._path = path
        self._begin = f"{stem_of(model)}@{safe(instance)}.diverging-"

    def keep(self, inputs: Mapping[str, NDArray[Any]]) -> Path:
        """Write a request's inputs down and return where; BYTES as Triton serialises them, with their shape.

        Raises:
            OSError: They cannot be written.
        """
        make_private_directory(self._path)
        file = self._place()
        data = io.BytesIO()
        # As numpy.savez does, which has names of its own for what some model may call an input.
        with zipfile.ZipFile(data, "w") as archive:
            for name, array in _plain(inputs).items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        replace_private(file, data.getvalue())
        return file

    def _place(self) -> Path:
        places = [self._path / f"{self._begin}{number}{_SUFFIX}" for number in range(MOST_KEPT)]
        free = next((place for place in places if not place.exists()), None)
        return free or min(places, key=lambda place: place.lstat().st_mtime_ns)


def _plain(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return arrays that are read without trust: none of objects, which only pickle could write."""
    plain: dict[str, NDArray[Any]] = {}
    for name, value in inputs.items():
        if value.dtype != np.object_:
            plain[name] = value
            continue
        texts = [text.encode() if isinstance(text, str) else bytes(text) for text in value.reshape(-1)]
        serialised = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        plain[name + _BYTES] = np.frombuffer(serialised, np.uint8)
        plain[name + _SHAPE] = np.array(value.shape, np.int64)
    return plain
