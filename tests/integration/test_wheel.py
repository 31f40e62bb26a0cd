"""The built wheel in an empty environment, without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from triton_router.testing.ports import free_ports

pytestmark = [pytest.mark.wheel, pytest.mark.triton, pytest.mark.beside, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout with the build tools of this environment."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_what_triton_loads_by_path(wheel: Path) -> None:
    """Backends, the shipped repository with its empty version directories, and the launcher's child program."""
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = "triton_router/_shipped"
    assert {f"{shipped}/backends/{name}/model.py" for name in ("router", "onnx", "torch", "coreml")} <= names
    assert {f"{shipped}/model_repository/example/{name}" for name in ("config.pbtxt", "router.yaml")} <= names
    assert "triton_router/serving/launcher/child.py" in names
    assert not [name for name in names if name.endswith((".onnx", ".pt2", ".log")) or "/tests/" in name]


def test_the_installed_wheel_serves_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a new environment, from another directory, the shipped repository becomes ready and answers a request."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def call(*words: str, timeout: int = 240) -> str:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, check=False, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    call(sys.executable, "-m", "venv", "empty")
    python = tmp_path / "empty" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    call(str(python), "-m", "pip", "-qq", "install", "--constraint", str(constraints), f"{wheel}[serve]")
    location = call(str(python), "-c", "import triton_router; print(triton_router.__file__)")
    assert str(tmp_path) in location
    repository = call(
        str(python), "-c", "from triton_router.assets import shipped; print(shipped('model_repository'))"
    ).strip()

    http, grpc, metrics = free_ports(3)
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    words = [str(tmp_path / "empty" / "bin" / "triton-router"), "serve", "--repository", repository, *ports, "--json"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, cwd=tmp_path, env=environment) as served,
    ):
        try:
            assert served.stdout is not None
            text = ""
            for line in served.stdout:
                text += line
                if line.startswith("}"):
                    break
            assert text, (tmp_path / "log").read_text()[-4000:]
            assert json.loads(text)["ready"] is True
            ask = (
                "import numpy, tritonclient.grpc as c\n"
                f"t = c.InferenceServerClient('127.0.0.1:{grpc}')\n"
                "i = c.InferInput('x', (1, 3), 'FP32'); i.set_data_from_numpy(numpy.ones((1, 3), 'float32'))\n"
                "print(t.infer('example', [i]).as_numpy('y').shape)"
            )
            assert call(str(python), "-c", ask).strip() == "(1, 3)"
        finally:
            served.terminate()
        assert served.wait(120) == 0
