"""The Core ML backend's own logic, with arithmetic in Core ML's place; Core ML itself exists on macOS only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from triton_router.errors import ConfigError, UnsupportedError
from triton_router.repository.coreml_package import METADATA_KEY, Package
from triton_router.serving.backends.context import ModelContext, TensorDeclaration
from triton_router.serving.backends.coreml import CoremlSession, compute_units, planned_share

PACKAGE = Package({"ids": "ids", "mask.0": "mask_0"}, {"best": "best", "score": "score"}, (1, 2, 4))


class FakeModel:
    """Stands for ``MLModel``: takes int32 in listed batches only."""

    def __init__(self, metadata: dict[str, str], mask: str = "mask_0") -> None:
        self.user_defined_metadata = metadata
        self.mask = mask

    def predict(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer the largest id and the number of unmasked tokens."""
        ids, mask = data["ids"], data[self.mask]
        assert ids.dtype == mask.dtype == np.int32
        assert len(ids) in (1, 2, 4)
        return {"best": (ids * mask).max(axis=1), "score": mask.sum(axis=1).astype(np.float32)}


def _context(**parameters: str) -> ModelContext:
    return ModelContext(
        name="m-coreml-ane",
        version="1",
        directory=Path("nowhere"),
        kind="CPU",
        device_id=0,
        max_batch_size=4,
        merges=True,
        inputs=(TensorDeclaration("ids", "int64", False), TensorDeclaration("mask.0", "bool", False)),
        outputs=(TensorDeclaration("best", "int64", False), TensorDeclaration("score", "float16", False)),
        parameters=parameters,
        accelerators=(),
        default_filename="",
    )


def _session(context: ModelContext) -> CoremlSession:
    return CoremlSession(context, lambda _: None, FakeModel({METADATA_KEY: PACKAGE.to_metadata()}))


def test_answers_come_in_the_configs_types_for_the_rows_that_were_sent() -> None:
    """INT64 and BOOL go in, three rows become four inside, INT64 and FP16 come out for three."""
    ids = np.array([[1, 9], [5, 2], [3, 4]])
    mask = np.array([[True, False], [True, True], [False, True]])
    answer = _session(_context()).run({"ids": ids, "mask.0": mask}, ["best", "score"])
    assert answer["best"].dtype == np.int64
    assert answer["best"].tolist() == [1, 5, 4]
    assert answer["score"].dtype == np.float16
    assert answer["score"].tolist() == [1, 2, 1]


def test_only_wanted_outputs_are_returned() -> None:
    """A client that asks for one output gets one."""
    answer = _session(_context()).run({"ids": np.ones((1, 2), int), "mask.0": np.ones((1, 2), bool)}, ["score"])
    assert list(answer) == ["score"]


def test_a_package_without_metadata_is_called_by_the_configs_names() -> None:
    """A package that somebody else made is served if its names are the config's."""
    session = CoremlSession(_context(), lambda _: None, FakeModel({}, mask="mask.0"))
    answer = session.run({"ids": np.array([[3, 7]]), "mask.0": np.ones((1, 2), bool)}, ["best"])
    assert answer["best"].tolist() == [7]


def test_a_config_that_declares_what_the_package_lacks_is_refused() -> None:
    """The model never becomes ready, and the message names the tensor."""
    other = Package({"ids": "ids"}, {"best": "best", "score": "score"})
    with pytest.raises(ConfigError, match=r"declares input 'mask\.0'; the package has ids"):
        CoremlSession(_context(), lambda _: None, FakeModel({METADATA_KEY: other.to_metadata()}))


def test_compute_units() -> None:
    """The Neural Engine is the default, Core ML's names are taken, others are refused with the list."""
    assert compute_units(_context()) == "CPU_AND_NE"
    assert compute_units(_context(compute_units="ALL")) == "ALL"
    with pytest.raises(ConfigError, match="'ANE'") as refused:
        compute_units(_context(compute_units="ANE"))
    assert "CPU_AND_GPU" in refused.value.hint


def test_the_planned_share_counts_work_not_operators() -> None:
    """One costly operator on the wanted device outweighs many cheap ones elsewhere."""
    assert planned_share([(0.9, True), (0.05, False), (0.05, False)]) == pytest.approx(0.9)
    assert planned_share([]) == 0.0


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs on macOS")
def test_elsewhere_than_on_macos_it_refuses_to_open() -> None:
    """The error says why and what to do instead."""
    with pytest.raises(UnsupportedError, match="Core ML runs on macOS only; model 'm-coreml-ane'") as refused:
        CoremlSession(_context(), lambda _: None)
    assert "Mac" in refused.value.hint
