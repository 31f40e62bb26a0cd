"""An exported torch program, called with named arrays. Runs in a child process only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triton_router.repository.build.samples import Tensors


class Program:
    """Calls a program by input and output names, however its author arranged arguments and results.

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
        spec = exported.call_spec.in_spec
        if spec is None:  # pragma: no cover - every program that torch.export makes has one
            raise ValueError("the program does not say how it is called")
        self._in_spec = spec
        self._input_names = tuple(input_names)
        self._output_names = tuple(output_names)
        self._device = device
        self._module = exported.module()

    def __call__(self, inputs: Tensors) -> Tensors:
        """Run it; a refused size raises ``RuntimeError`` or ``AssertionError``."""
        leaves = [torch.from_numpy(inputs[name]).to(self._device) for name in self._input_names]
        args, kwargs = pytree.tree_unflatten(leaves, self._in_spec)
        with torch.inference_mode():
            results = pytree.tree_leaves(self._module(*args, **kwargs))
        return {name: value.detach().to("cpu").numpy() for name, value in zip(self._output_names, results, strict=True)}
