"""What is compared and what is timed when a variant is checked, on plain numpy functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from triton_router.repository.build.samples import Sample
from triton_router.repository.build.verify import compare, measure

if TYPE_CHECKING:
    from triton_router.repository.build.samples import Tensors

HIDDEN = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
MASK = np.array([[1, 1, 0], [1, 0, 0]])


class Machine:
    """A clock, and a model whose every call takes 1 ms per row, ten times that while others use the machine."""

    def __init__(self, busy: set[int]) -> None:
        self.now = 0.0
        self.calls = 0
        self._busy = busy

    def clock(self) -> float:
        return self.now

    def __call__(self, inputs: Tensors) -> Tensors:
        self.calls += 1
        self.now += 0.001 * len(inputs["x"]) * (10 if self.calls in self._busy else 1)
        return inputs


def _sample(rows: int) -> Sample:
    return Sample({"x": np.zeros((rows, 4), np.float32)}, {})


def test_a_busy_machine_does_not_make_a_variant_slow() -> None:
    """Nine of ten runs are disturbed tenfold: what is kept is what the undisturbed one took, for every size."""
    machine = Machine({call for call in range(1000) if call % 10})
    rows = measure(machine, [_sample(8), _sample(1), _sample(3)], batched=True, clock=machine.clock)
    expected = [(1, 4, 1.0), (3, 12, 3.0), (8, 32, 8.0)]
    assert [(row["batch"], row["work"], row["latency_ms"]) for row in rows] == expected


def test_a_slow_model_is_timed_a_few_times() -> None:
    """Once to warm up and three times to measure are enough for a model of two seconds per call."""
    machine = Machine(set())
    rows = measure(machine, [_sample(2000)], batched=False, clock=machine.clock)
    assert (rows[0]["batch"], rows[0]["latency_ms"], machine.calls) == (1, 2000.0, 4)


def _off_by_one_at(there: np.ndarray) -> Tensors:
    return {"hidden": HIDDEN + there[:, :, None].astype(np.float32), "pooled": HIDDEN[:, 0]}


def test_what_stands_at_padding_is_not_compared() -> None:
    """Where attention_mask is 0 nobody reads the answer; elsewhere every difference counts."""
    sample = Sample({"attention_mask": MASK}, {"hidden": HIDDEN, "pooled": HIDDEN[:, 0]})
    assert compare(lambda _: _off_by_one_at(MASK == 0), [sample]).absolute == 0.0
    assert compare(lambda _: _off_by_one_at(MASK == 1), [sample]).absolute > 0.9
    plain = Sample({"mask": MASK}, sample.outputs)
    assert compare(lambda _: _off_by_one_at(MASK == 0), [plain]).absolute > 0.9


def test_the_error_is_a_share_of_the_answer() -> None:
    """An answer that is everywhere one per cent too large has an error of one per cent, however large it is."""
    for scale in (1e-2, 1.0, 1e4):
        sample = Sample({"x": MASK}, {"hidden": HIDDEN * np.float32(scale)})
        found = compare(lambda _, big=sample.outputs["hidden"]: {"hidden": big * np.float32(1.01)}, [sample])
        assert found.rms == pytest.approx(0.01, rel=1e-3)
