"""Where the files that Triton loads by path lie: inside the installed wheel, else in the checkout."""

from __future__ import annotations

from pathlib import Path

from triton_router.errors import NotFoundError

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Return the directory of a shipped folder: ``backends`` or ``model_repository``.

    Raises:
        NotFoundError: The installation lacks it.
    """
    for candidate in (_PACKAGE / "_shipped" / folder, _PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise NotFoundError(
        f"the shipped folder {folder!r} is missing from this installation of triton-router",
        hint="reinstall the package: pip install --force-reinstall triton-router",
    )
