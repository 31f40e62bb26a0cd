"""Call an exported torch program with named tensors, however its author arranged arguments and results.

The builder checks a program and the server serves it through this one piece of code, so what passes its check is
called in the same way afterwards. Torch is imported with the first program, not with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from triton_router.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.export import ExportedProgram


class ProgramCall:
    """A program as a function from named tensors to its flat results.

    Args:
        program: Any exported program whose arguments are tensors, nested in tuples, lists or dicts or not.
        input_names: Names of its arguments in its own order, depth first.

    Raises:
        UnsupportedError: The file does not say how the program is called.
    """

    def __init__(self, program: ExportedProgram, input_names: Sequence[str]) -> None:
        from torch.utils import _pytree as pytree

        spec = program.call_spec.in_spec
        if spec is None:  # pragma: no cover - every program that torch.export makes has one
            raise UnsupportedError(
                "the program does not say how it is called", hint="export it again with torch.export"
            )
        self._pytree = pytree
        self._in_spec = spec
        self._input_names = tuple(input_names)
        self._module: Any = program.module()

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Run it and return the tensors of its result, depth first.

        Raises:
            RuntimeError, AssertionError: It refuses a size.
        """
        leaves = [inputs[name] for name in self._input_names]
        args, kwargs = self._pytree.tree_unflatten(leaves, self._in_spec)
        return cast("list[Tensor]", self._pytree.tree_leaves(self._module(*args, **kwargs)))


def result_keys(program: ExportedProgram) -> tuple[str, ...]:
    """Return the keys of the dict of tensors that the program returns; empty if it returns something else."""
    spec = program.call_spec.out_spec
    if spec is None or spec.type is not dict or not isinstance(spec.context, list):
        return ()
    keys = tuple(str(key) for key in cast("list[object]", spec.context))
    return keys if len(keys) == len(program.graph_signature.user_outputs) else ()
