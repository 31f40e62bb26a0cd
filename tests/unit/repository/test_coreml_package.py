"""Calling a Core ML package: names, types and batch sizes, with a package that is plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_router.errors import InvalidInputError, ModelFileError
from triton_router.repository.coreml_package import Package, boundary


class Doubler:
    """Stands for Core ML: takes only listed batches, in float32 or int32, and remembers what it was given."""

    def __init__(self, batches: tuple[int, ...]) -> None:
        self.batches = batches
        self.calls: list[int] = []

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Double the feature ``x_0``."""
        x = inputs["x_0"]
        assert x.dtype in (np.float32, np.int32)
        assert not self.batches or len(x) in self.batches
        self.calls.append(len(x))
        return {"y_0": x * 2}


@given(rows=st.integers(1, 40), batches=st.sampled_from([(1,), (1, 2, 4, 8), (1, 2, 4, 6), (3,)]))
def test_any_number_of_rows_is_answered_row_by_row(rows: int, batches: tuple[int, ...]) -> None:
    """Whatever the package's batches, each row's answer is its own, in order, and padding is not among them."""
    core_ml = Doubler(batches)
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    answer = Package({"x.0": "x_0"}, {"y.0": "y_0"}, batches).call(core_ml.predict, {"x.0": x})
    np.testing.assert_array_equal(answer["y.0"], x * 2)
    assert len(core_ml.calls) == -(-rows // batches[-1])


def test_a_package_without_batches_is_called_once_as_it_is() -> None:
    """Ranges and unbatched models take the tensors unchanged."""
    core_ml = Doubler(())
    answer = Package({"x": "x_0"}, {"y": "y_0"}).call(core_ml.predict, {"x": np.full((5, 2), 3.0, np.float64)})
    assert answer["y"].tolist() == [[6.0, 6.0]] * 5
    assert core_ml.calls == [5]


@pytest.mark.parametrize(
    ("given_type", "taken_type"),
    [
        ("float16", "float16"),
        ("float32", "float32"),
        ("float64", "float32"),
        ("bool", "int32"),
        ("uint8", "int32"),
        ("int16", "int32"),
        ("int32", "int32"),
        ("int64", "int32"),
        ("uint64", "int32"),
    ],
)
def test_types_at_the_boundary(given_type: str, taken_type: str) -> None:
    """Every type of the contract arrives as one that Core ML takes, with its values."""
    value = np.array([0, 1], dtype=given_type)
    taken = boundary("x", value)
    assert taken.dtype == taken_type
    assert taken.tolist() == [0, 1]


@pytest.mark.parametrize("value", [np.array([2**31]), np.array([-(2**31) - 1]), np.array([2**31], np.uint32)])
def test_an_integer_that_does_not_fit_is_the_callers_error(value: np.ndarray) -> None:
    """It is refused, by name, rather than wrapped around."""
    with pytest.raises(InvalidInputError, match="input 'ids' holds integers beyond 32 bits"):
        boundary("ids", value)


def test_metadata_reads_back_the_same() -> None:
    """What is stored in a package is what its server reads."""
    package = Package({"x.0": "x_0"}, {"y": "y"}, (1, 2))
    assert Package.from_metadata(package.to_metadata()) == package


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": {}, "outputs": {}, "batches": ["x"]}'])
def test_foreign_metadata_is_refused(text: str) -> None:
    """A package whose metadata was edited is not guessed at."""
    with pytest.raises(ModelFileError, match="cannot be read"):
        Package.from_metadata(text)
