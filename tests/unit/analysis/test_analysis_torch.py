"""PyTorch models from factories and ``.pt2`` files, analysed in a child process as the command line does."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from triton_router.analysis.report import AnalysisReport
from triton_router.analysis.source import resolve_source
from triton_router.errors import BuildError, ModelFileError, NotFoundError, TritonRouterError, UnsupportedError
from triton_router.repository.sandbox import Limits, run_child

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.build
pytest.importorskip("torch")

MODELS = """
import sys
import torch
from torch import nn
from triton_router.analysis.torch_source import TorchSource

def mlp():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (torch.randn(1, 16),)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("scale", torch.ones(8, 1, 1))
    def forward(self, image):
        return {"features": torch.relu(self.conv(image)) * self.scale, "mean": image.mean((1, 2, 3))}

def cnn():
    return Block(), {"image": torch.randn(2, 3, 8, 8)}

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(16, 48)
    def forward(self, x):
        q, k, v = self.project(x)[:, None].chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v)[:, 0] + torch.arange(16)

def attention():
    axes = {"x": {0: "batch", 1: "sequence"}}
    return TorchSource(Attention(), {"x": torch.randn(2, 7, 16)}, axes, ("y",), {"sequence": (1, 64)})

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(8, 16, batch_first=True)
    def forward(self, x):
        return self.cell(x)[0]

def lstm():
    return Recurrent(), (torch.randn(2, 5, 8),)

class Cond(nn.Module):
    def forward(self, x):
        w = torch.ones(4, 4)
        return torch.cond(x.sum() > 0, lambda x: x @ w, lambda x: x @ w @ w, (x,))

def cond():
    return Cond(), (torch.randn(2, 4),)

def wrong_type(): return 3
def no_tensor(): return nn.Linear(2, 2), {"input": [1.0, 2.0]}
def raises(): raise RuntimeError("no weights here")
def exits(): sys.exit("no licence")
class Nameless(nn.Module):
    def forward(self, x): return {"": x + 1}
def nameless(): return Nameless(), (torch.randn(2, 4),)
def wrong_shape(): return nn.Linear(2, 2), (torch.randn(1, 3),)
def scalar(): return nn.Identity(), {"input": torch.tensor(1.0)}
def hungry(): return nn.Linear(60000, 60000), (torch.randn(1, 60000),)
not_callable = 5

class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1
def untraceable(): return Branch(), (torch.randn(2, 4),)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the module ``own_models``."""
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _analyse(text: str, *, sha256: str | None = None, memory: int = 4 * 1024**3) -> AnalysisReport:
    payload = {"source": resolve_source(text, sha256=sha256).to_json(), "name": "m"}
    limits = Limits(memory_bytes=memory)
    return AnalysisReport.from_json(run_child("triton_router.analysis.child:analyse", payload, limits=limits))


SEQUENCE = 64
EXPECTED = {
    "mlp": (1280, 676, {"input": (-1, 16)}, {"output": (-1, 4)}),
    "cnn": (2 * 8 * 64 * 27, 232, {"image": (-1, 3, 8, 8)}, {"features": (-1, 8, 8, 8), "mean": (-1,)}),
    "attention": (
        2 * SEQUENCE * 16 * 48 + 4 * SEQUENCE * SEQUENCE * 16,
        816,
        {"x": (-1, -1, 16)},
        {"y": (-1, -1, 16)},
    ),
    "lstm": (2 * 5 * (64 * 8 + 64 * 16), 1664, {"x": (-1, 5, 8)}, {"output": (-1, 5, 16)}),
    "cond": (2 * 2 * 16, 0, {"x": (-1, 4)}, {"output": (-1, 4)}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_factories(here: Path, name: str) -> None:
    """FLOPs by hand, parameters, shapes and names, for each way in which a factory may return a model."""
    report = _analyse(f"own_models:{name}")
    found = report.characteristics
    flops, parameters, inputs, outputs = EXPECTED[name]
    assert (found.flop_count, found.parameter_count) == (flops, parameters)
    assert (found.input_shapes, found.output_shapes) == (inputs, outputs)
    assert report.batchable_by_shape
    assert found.has_control_flow == (name == "cond")
    assert report.has_convolutions == (name == "cnn")
    assert not found.has_custom_ops
    assert report.uncounted_operators == ()
    if name == "attention":
        assert report.assumed_dims == {"sequence": SEQUENCE}  # the bound is smaller than the default
        assert report.dynamic_dims["y"] == {0: "batch", 1: "sequence"}


def test_a_pt2_is_analysed_like_its_module(here: Path) -> None:
    """The exported file gives the same figures; a hash that does not fit its bytes does not load it."""
    code = (
        "import torch; from triton_router.analysis.torch_source import *; "
        "s = load_factory('own_models:attention'); torch.export.save(export_source(s), 'model.pt2')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=here, capture_output=True)
    digest = hashlib.sha256((here / "model.pt2").read_bytes()).hexdigest()
    report = _analyse("model.pt2", sha256=digest)
    assert report.characteristics.flop_count == EXPECTED["attention"][0]
    assert report.characteristics.input_shapes == {"x": (-1, -1, 16)}
    assert report.batchable_by_shape
    payload = {"source": {**resolve_source("model.pt2", sha256=digest).to_json(), "sha256": "0" * 64}, "name": "m"}
    with pytest.raises(ModelFileError, match="was not loaded"):
        run_child("triton_router.analysis.child:analyse", payload, limits=Limits())


def test_a_damaged_pt2_is_refused(here: Path) -> None:
    """Bytes that are no exported program give an error that says how to make one."""
    (here / "model.pt2").write_bytes(b"PK\x03\x04 nothing else")
    digest = hashlib.sha256((here / "model.pt2").read_bytes()).hexdigest()
    with pytest.raises(ModelFileError, match="not an exported program") as caught:
        _analyse("model.pt2", sha256=digest)
    assert "torch.export.save" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("missing", NotFoundError, "has no 'missing'"),
        ("not_callable", ModelFileError, "is a int, not a function"),
        ("wrong_type", ModelFileError, "returned int"),
        ("no_tensor", ModelFileError, "example input 'input' is a list"),
        ("nameless", ModelFileError, "under an empty name"),
        ("exits", ModelFileError, r"SystemExit: no licence \(at own_models.py:\d+\)"),
        ("raises", ModelFileError, r"RuntimeError: no weights here \(at own_models.py:\d+\)"),
        ("wrong_shape", ModelFileError, "does not run on its example inputs"),
        ("scalar", ModelFileError, "no dynamic axis 0"),
        ("untraceable", UnsupportedError, "torch.export cannot trace"),
    ],
)
def test_factories_that_cannot_be_used(here: Path, name: str, kind: type[TritonRouterError], match: str) -> None:
    """Each mistake has an error that names it and a hint."""
    with pytest.raises(kind, match=match) as caught:
        _analyse(f"own_models:{name}")
    assert caught.value.hint


def test_a_module_that_does_not_import(here: Path) -> None:
    """An error while importing is the user's, with the line."""
    (here / "broken.py").write_text("import no_such_package_here\n")
    with pytest.raises(ModelFileError, match=r"importing broken failed: ModuleNotFoundError.*broken.py:1"):
        _analyse("broken:build")


def test_a_model_that_does_not_fit_in_memory(here: Path) -> None:
    """The memory limit ends a factory that asks for 14 GB, and the option is named."""
    with pytest.raises(BuildError, match="more memory than its limit") as caught:
        _analyse("own_models:hungry")
    assert "--memory-limit" in caught.value.hint
