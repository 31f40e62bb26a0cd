"""An exported torch program, called with named arrays. Runs in a child process only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.export.passes import move_to_device_pass

from triton_router.torch_call import ProgramCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.repository.build.samples import Tensors


class Program:
    """Calls a program by input and output names.

    Args:
        exported: The program.
        input_names: Names for its arguments, flattened.
        output_names: Names for its results, flattened.
        device: Where it runs (``cpu``, ``cuda``, ``mps``).
    """

    def __init__(
        self,
        exported: torch.export.ExportedProgram,
        input_names: Sequence[str],
        output_names: Sequence[str],
        device: str = "cpu",
    ) -> None:
        if device != "cpu":
            exported = move_to_device_pass(exported, device)
        self._call = ProgramCall(exported, input_names)
        self._output_names = tuple(output_names)
        self._device = device

    def __call__(self, inputs: Tensors) -> Tensors:
        """Run it; a refused size raises ``RuntimeError`` or ``AssertionError``."""
        with torch.inference_mode():
            results = self._call({name: torch.from_numpy(value).to(self._device) for name, value in inputs.items()})
        return {name: value.detach().to("cpu").numpy() for name, value in zip(self._output_names, results, strict=True)}
