"""Whatever bytes an ONNX file has, it is analysed or refused with this package's own error."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from triton_router.analysis.onnx_characteristics import analyse_onnx
from triton_router.errors import ModelFileError
from triton_router.testing import onnx_models as make

SEEDS = [
    make.mlp().SerializeToString(),
    make.cnn().SerializeToString(),
    make.attention().SerializeToString(),
    make.recurrent("LSTM", 4).SerializeToString(),
]


def _analyse_or_refuse(data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(directory) / "model.onnx"
        path.write_bytes(data)
        try:
            analyse_onnx(path, name="m")
        except ModelFileError as error:
            refusal = error
        else:
            return True
    assert refusal.message
    assert refusal.hint
    return False


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_mutated_bytes(seed: bytes, edits: list[tuple[float, int]]) -> None:
    """Changed bytes never lead to another exception."""
    data = bytearray(seed)
    for position, byte in edits:
        data[int(position * len(data))] = byte
    _analyse_or_refuse(bytes(data))


@settings(max_examples=60, deadline=None)
@given(seed=st.sampled_from(SEEDS), share=st.floats(0, 1, exclude_max=True))
def test_truncated_bytes(seed: bytes, share: float) -> None:
    """A file that is cut off is refused wherever the cut is."""
    assert not _analyse_or_refuse(seed[: int(share * len(seed))])


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Bytes that never were a model are refused."""
    assert not _analyse_or_refuse(data)
