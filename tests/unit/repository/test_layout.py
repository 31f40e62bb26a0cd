"""Installation: all of it or nothing, and never over somebody else's model."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from triton_router.errors import InvalidInputError, UnavailableError
from triton_router.repository import manifest
from triton_router.repository.layout import Installation, check_name, locked, require_ours, staging

if TYPE_CHECKING:
    from pathlib import Path


def _model(root: Path, name: str, version: int, text: str) -> Path:
    directory = root / name
    (directory / str(version)).mkdir(parents=True)
    (directory / str(version) / "model.onnx").write_text(text)
    (directory / "config.pbtxt").write_text(f"config of {text}")
    known = manifest.with_version(None, {"model": "m", "target": "t"}, version, {"text": text})
    (directory / manifest.MANIFEST_FILE).write_text(manifest.render(known))
    return directory


def _content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A repository with one model, a staging directory, and one for what is replaced."""
    repository, stage, trash = (tmp_path / name for name in ("models", "stage", "trash"))
    for path in (repository, stage, trash):
        path.mkdir()
    _model(repository, "m-a", 1, "first")
    return repository, stage, trash


def test_a_second_version_stands_beside_the_first(places: tuple[Path, Path, Path]) -> None:
    """Version 1 stays as it is; configuration and manifest are the new ones."""
    repository, stage, trash = places
    with Installation(repository, trash) as installation:
        installation.install("m-a", _model(stage, "m-a", 2, "second"), 2)
    assert (repository / "m-a/1/model.onnx").read_text() == "first"
    assert (repository / "m-a/2/model.onnx").read_text() == "second"
    assert (repository / "m-a/config.pbtxt").read_text() == "config of second"


@pytest.mark.parametrize("version", [1, 2])
def test_a_failing_step_undoes_the_ones_before(places: tuple[Path, Path, Path], version: int) -> None:
    """The third of three models cannot be moved: the new one is gone, the old one is as it was, to the byte."""
    repository, stage, trash = places
    before = _content(repository)

    def install() -> None:
        with Installation(repository, trash) as installation:
            installation.install("m-b", _model(stage, "m-b", version, "new"), version)
            installation.install("m-a", _model(stage, "m-a", version, "second"), version)
            installation.install("m", stage / "was-never-written", version)

    with pytest.raises(FileNotFoundError):
        install()
    assert _content(repository) == before
    assert sorted(path.name for path in repository.iterdir()) == ["m-a"]


def test_ctrl_c_undoes_too(places: tuple[Path, Path, Path]) -> None:
    """An interrupt between two models leaves none of them."""
    repository, stage, trash = places
    before = _content(repository)

    def install() -> None:
        with Installation(repository, trash) as installation:
            installation.install("m-b", _model(stage, "m-b", 1, "new"), 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install()
    assert _content(repository) == before


def test_artifacts_of_versions_are_kept_together(places: tuple[Path, Path, Path]) -> None:
    """A directory that is no version is merged, not replaced."""
    repository, stage, trash = places
    (repository / "m-a/artifacts/1").mkdir(parents=True)
    staged = _model(stage, "m-a", 2, "second")
    (staged / "artifacts/2/coreml-ane").mkdir(parents=True)
    with Installation(repository, trash) as installation:
        installation.install("m-a", staged, 2)
    assert sorted(path.name for path in (repository / "m-a/artifacts").iterdir()) == ["1", "2"]


def test_files_can_be_read_by_the_server(places: tuple[Path, Path, Path]) -> None:
    """Whatever the umask was, directories are 755 and files 644."""
    repository, stage, trash = places
    staged = _model(stage, "m-b", 1, "new")
    staged.chmod(0o700)
    (staged / "1/model.onnx").chmod(0o600)
    with Installation(repository, trash) as installation:
        installation.install("m-b", staged, 1)
    assert stat.S_IMODE((repository / "m-b").stat().st_mode) == 0o755
    assert stat.S_IMODE((repository / "m-b/1/model.onnx").stat().st_mode) == 0o644


def test_somebody_elses_model_is_refused(places: tuple[Path, Path, Path]) -> None:
    """A directory without a manifest, or of another routed model, is not touched."""
    repository, _, _ = places
    (repository / "theirs").mkdir()
    with pytest.raises(InvalidInputError, match="not made by triton-router"):
        require_ours(repository, "theirs", "theirs")
    with pytest.raises(InvalidInputError, match="belongs to the routed model 'm'"):
        require_ours(repository, "m-a", "other")
    with pytest.raises(InvalidInputError, match="belongs to"):
        require_ours(repository, "m-a", "m-a")
    require_ours(repository, "m-a", "m")
    require_ours(repository, "absent", "absent")


@pytest.mark.parametrize("name", ["", ".", "..", "../m", "a/b", "/etc", "-m", ".m", "a b", "a\n", "m" * 129])
def test_names_cannot_leave_the_repository(name: str) -> None:
    """What is not a plain name is refused."""
    with pytest.raises(InvalidInputError, match="not a usable model name"):
        check_name(name)


def test_two_additions_do_not_meet(tmp_path: Path) -> None:
    """While one holds the repository another is told to wait; afterwards it may."""
    repository = tmp_path / "models"
    with locked(repository):
        with pytest.raises(UnavailableError, match="another triton-router add"), locked(repository):
            pass
        (repository / "m").mkdir()
    with locked(repository):
        pass


def test_a_failed_first_addition_leaves_no_repository(tmp_path: Path) -> None:
    """A repository that was made for an addition goes with it."""
    repository = tmp_path / "deep" / "models"
    with pytest.raises(RuntimeError), locked(repository):
        raise RuntimeError
    assert not repository.exists()


def test_staging_is_beside_the_repository_and_goes_away(tmp_path: Path) -> None:
    """Triton never sees it, whatever happens; what a killed run left is removed by the next one."""
    repository = tmp_path / "models"
    repository.mkdir()
    left = tmp_path / ".models.staging-killed"
    left.mkdir()

    def build() -> None:
        with staging(repository) as stage:
            assert stage.parent == tmp_path
            assert not left.exists()
            (stage / "half").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_directories_above_a_new_repository_go_with_it(tmp_path: Path) -> None:
    """What was created for an addition that installed nothing is removed, and no more than that."""
    with locked(tmp_path / "a" / "b" / "models"):
        assert (tmp_path / "a" / "b" / "models").is_dir()
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    with locked(tmp_path / "kept" / "b" / "models"):
        (tmp_path / "kept" / "b" / "other").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["kept", "kept/b", "kept/b/other"]
