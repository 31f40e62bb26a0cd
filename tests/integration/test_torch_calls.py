"""A user's own ``.pt2``, whatever its arguments and results look like: added by the command, served by Triton."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as client

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.testing.triton_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.beside, pytest.mark.build, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
LOW = np.arange(6, dtype=np.float32).reshape(2, 3)
HIGH = LOW**2 + 1
SCALE = np.array([[2.0], [3.0]], dtype=np.float32)


def _add(writer: str, name: str, folder: Path, repository: Path) -> None:
    path = folder / f"{name}.pt2"
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import added_models, pathlib; "
    code += f"added_models.{writer}(pathlib.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    command = [sys.executable, "-m", "triton_router.cli.main", "add", str(path), "--name", name]
    command += ["--repository", str(repository), "--targets", "pt2-cpu"]
    command += ["--sha256", hashlib.sha256(path.read_bytes()).hexdigest()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(start_triton: Callable[..., TritonServer], tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """A server over what ``triton-router add`` made of two programs."""
    folder = tmp_path_factory.mktemp("calls")
    repository = folder / "models"
    _add("write_nested_program", "nested", folder, repository)
    _add("write_keyword_program", "keywords", folder, repository)
    return start_triton(repository)


def _infer(server: TritonServer, model: str, arrays: dict[str, np.ndarray]) -> client.InferResult:
    inputs = []
    for name, array in arrays.items():
        tensor = client.InferInput(name, array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with client.InferenceServerClient(server.grpc_url) as connection:
        return connection.infer(model, inputs, client_timeout=90)


@pytest.mark.parametrize("model", ["nested-pt2-cpu", "nested"])
def test_a_program_with_nested_arguments_and_results(server: TritonServer, model: str) -> None:
    """A dict and a keyword go in, a dict with a tuple comes out: each leaf is a tensor under its name."""
    found = _infer(server, model, {"pair_low": LOW, "pair_high": HIGH, "scale": SCALE})
    assert np.array_equal(found.as_numpy("output_0"), (HIGH - LOW) * SCALE)
    assert np.array_equal(found.as_numpy("output_1"), LOW * SCALE)
    assert np.array_equal(found.as_numpy("output_2"), HIGH * SCALE)


@pytest.mark.parametrize("model", ["keywords-pt2-cpu", "keywords"])
def test_a_program_with_keywords_and_a_dict(server: TritonServer, model: str) -> None:
    """Keywords in another order than ``forward`` has them are not mixed up; the dict's keys name the outputs."""
    found = _infer(server, model, {"left": LOW, "right": HIGH})
    assert np.array_equal(found.as_numpy("quotient"), LOW / HIGH)
    assert np.array_equal(found.as_numpy("difference"), LOW - HIGH)
