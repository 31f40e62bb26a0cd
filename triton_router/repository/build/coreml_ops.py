"""Reference arithmetic, by torch, for the Core ML operators that coremltools cannot evaluate itself.

coremltools folds constants by `Operation.value_inference`, which most operators have. Those that every
network needs and that lack it (convolution, pooling, normalisation, recurrence) are here, and so are the two
matrix products, because numpy multiplies float16 matrices hundreds of times slower than float32 ones.

Each function takes an ``Operation`` of coremltools whose inputs carry values, computes in float32, and returns
one tensor per output. The caller rounds them to the type that the operator declares, so a float16 program is
rounded after every operator, though not inside one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name under which torch documents it

if TYPE_CHECKING:
    from collections.abc import Callable


class NotEvaluatedError(Exception):
    """This operator is known, but not with these attributes."""


def _tensor(var: Any) -> torch.Tensor:
    """Return a variable's value; floats as float32."""
    value = torch.from_numpy(np.array(var.val))
    return value.float() if value.is_floating_point() else value


def _optional(op: Any, name: str) -> torch.Tensor | None:
    var = getattr(op, name, None)
    return None if var is None else _tensor(var)


def _ints(var: Any) -> list[int]:
    return [int(item) for item in np.atleast_1d(var.val)]


def _paddings(op: Any, kernel: list[int], strides: list[int], dilations: list[int]) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial dimension."""
    kind = str(op.pad_type.val)
    rank = len(kernel)
    if kind == "valid":
        return [(0, 0)] * rank
    if kind == "custom":
        pad = _ints(op.pad)
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(rank)]
    pairs: list[tuple[int, int]] = []
    for size, width, stride, dilation in zip(op.x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-int(size) // stride) - 1) * stride + (width - 1) * dilation + 1 - int(size), 0)
        small, large = total // 2, total - total // 2
        pairs.append((large, small) if kind == "same_lower" else (small, large))
    return pairs


def _pad(x: torch.Tensor, pairs: list[tuple[int, int]], value: float = 0.0) -> torch.Tensor:
    """Pad the spatial dimensions; torch wants the last dimension first."""
    return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=value)


def _conv(op: Any) -> torch.Tensor:
    weight, strides, dilations = _tensor(op.weight), _ints(op.strides), _ints(op.dilations)
    x = _pad(_tensor(op.x), _paddings(op, list(weight.shape[2:]), strides, dilations))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return convolve(x, weight, _optional(op, "bias"), strides, 0, dilations, int(op.groups.val))


def _conv_transpose(op: Any) -> torch.Tensor:
    if str(op.pad_type.val) not in {"valid", "custom"} or op.output_shape is not None:
        raise NotEvaluatedError
    weight, strides, dilations = _tensor(op.weight), _ints(op.strides), _ints(op.dilations)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[weight.ndim - 3]
    full = convolve(_tensor(op.x), weight, _optional(op, "bias"), strides, 0, 0, int(op.groups.val), dilations)
    for axis, (before, after) in enumerate(_paddings(op, list(weight.shape[2:]), strides, dilations), start=2):
        full = full.narrow(axis, before, full.shape[axis] - before - after)
    return full


def _max_pool(op: Any) -> torch.Tensor:
    kernel, strides = _ints(op.kernel_sizes), _ints(op.strides)
    x = _pad(_tensor(op.x), _paddings(op, kernel, strides, [1] * len(kernel)), value=float("-inf"))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    return pool(x, kernel, strides, ceil_mode=bool(op.ceil_mode.val))


def _avg_pool(op: Any) -> torch.Tensor:
    kernel, strides = _ints(op.kernel_sizes), _ints(op.strides)
    pairs = _paddings(op, kernel, strides, [1] * len(kernel))
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    x, ceil = _tensor(op.x), bool(op.ceil_mode.val)
    if ceil and any(any(pair) for pair in pairs):
        raise NotEvaluatedError
    mean = pool(_pad(x, pairs), kernel, strides, ceil_mode=ceil)
    if bool(op.exclude_padding_from_average.val):
        mean = mean / pool(_pad(torch.ones_like(x), pairs), kernel, strides, ceil_mode=ceil)
    return mean


def _batch_norm(op: Any) -> torch.Tensor:
    gamma, beta = _optional(op, "gamma"), _optional(op, "beta")
    return F.batch_norm(_tensor(op.x), _tensor(op.mean), _tensor(op.variance), gamma, beta, eps=float(op.epsilon.val))


def _instance_norm(op: Any) -> torch.Tensor:
    gamma, beta = _optional(op, "gamma"), _optional(op, "beta")
    return F.instance_norm(_tensor(op.x), weight=gamma, bias=beta, eps=float(op.epsilon.val))


def _linear(op: Any) -> torch.Tensor:
    return F.linear(_tensor(op.x), _tensor(op.weight), _optional(op, "bias"))


def _matmul(op: Any) -> torch.Tensor:
    x, y = _tensor(op.x), _tensor(op.y)
    x = x.transpose(-1, -2) if bool(op.transpose_x.val) and x.ndim > 1 else x
    y = y.transpose(-1, -2) if bool(op.transpose_y.val) and y.ndim > 1 else y
    return torch.matmul(x, y)


def _attention(op: Any) -> torch.Tensor:
    query, key, value = _tensor(op.query), _tensor(op.key), _tensor(op.value)
    return F.scaled_dot_product_attention(query, key, value, _optional(op, "attn_mask"))


def _silu(op: Any) -> torch.Tensor:
    return F.silu(_tensor(op.x))


def _select(op: Any) -> torch.Tensor:
    """Choose elementwise; coremltools' own inference fails when a scalar is broadcast."""
    return torch.where(_tensor(op.cond).bool(), _tensor(op.a), _tensor(op.b))


def _gather_nd(op: Any) -> torch.Tensor:
    if int(op.batch_dims.val) != 0:
        raise NotEvaluatedError
    indices = _tensor(op.indices).long()
    return _tensor(op.x)[tuple(indices.unbind(-1))]


def _one_hot(op: Any) -> torch.Tensor:
    hot = F.one_hot(_tensor(op.indices).long(), int(op.one_hot_vector_size.val)).bool()
    chosen = torch.where(hot, _tensor(op.on_value), _tensor(op.off_value))
    axis = int(op.axis.val)
    return chosen.movedim(-1, axis if axis >= 0 else hot.ndim + axis)


def _pixel_shuffle(op: Any) -> torch.Tensor:
    return F.pixel_shuffle(_tensor(op.x), int(op.upscale_factor.val))


def _pixel_unshuffle(op: Any) -> torch.Tensor:
    return F.pixel_unshuffle(_tensor(op.x), int(op.downscale_factor.val))


def _upsample_nearest(op: Any) -> torch.Tensor:
    scale = float(op.scale_factor_height.val), float(op.scale_factor_width.val)
    return F.interpolate(_tensor(op.x), scale_factor=scale, mode="nearest")


def _upsample_bilinear(op: Any) -> torch.Tensor:
    scale = float(op.scale_factor_height.val), float(op.scale_factor_width.val)
    corners, centres = bool(op.align_corners.val), getattr(op, "half_pixel_centers", None)
    if not corners and centres is not None and not bool(centres.val):
        raise NotEvaluatedError  # torch has no such grid
    return F.interpolate(_tensor(op.x), scale_factor=scale, mode="bilinear", align_corners=corners)


def _lstm(op: Any) -> tuple[torch.Tensor, ...]:
    """Run torch's LSTM; Core ML orders gates i, f, o, z and torch i, f, z, o."""
    activations = (op.recurrent_activation.val, op.cell_activation.val, op.activation.val)
    if activations != ("sigmoid", "tanh", "tanh") or op.peephole is not None or op.clip is not None:
        raise NotEvaluatedError
    forward = [op.weight_ih, op.weight_hh, op.bias]
    backward = [op.weight_ih_back, op.weight_hh_back, op.bias_back] if op.direction.val == "bidirectional" else []
    hidden = int(op.weight_hh.shape[1])
    weights: list[torch.Tensor] = []
    for ih, hh, bias in (forward, backward) if backward else (forward,):
        zeros = torch.zeros(4 * hidden)
        blocks = [_tensor(ih), _tensor(hh), zeros if bias is None else _tensor(bias), zeros]
        weights += [_reorder(block, hidden) for block in blocks]
    return _recur(op, weights, two_way=bool(backward))


def _reorder(block: torch.Tensor, hidden: int) -> torch.Tensor:
    i, f, o, z = block.split(hidden)
    return torch.cat((i, f, z, o))


def _recur(op: Any, weights: list[torch.Tensor], *, two_way: bool) -> tuple[torch.Tensor, ...]:
    directions = 2 if two_way else 1
    reverse = op.direction.val == "reverse"
    x = _tensor(op.x).flip(0) if reverse else _tensor(op.x)
    # Core ML keeps the directions side by side in [batch, directions * hidden], torch stacks them.
    state = [torch.stack(_tensor(var).chunk(directions, dim=1)) for var in (op.initial_h, op.initial_c)]
    output, h, c = torch.lstm(x, state, weights, True, 1, 0.0, False, two_way, False)
    last_h, last_c = (torch.cat(tuple(part), dim=1) for part in (h, c))
    if not bool(op.output_sequence.val):
        return last_h.unsqueeze(0), last_h, last_c
    return output.flip(0) if reverse else output, last_h, last_c


EVALUATORS: dict[str, Callable[[Any], torch.Tensor | tuple[torch.Tensor, ...]]] = {
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "gather_nd": _gather_nd,
    "instance_norm": _instance_norm,
    "linear": _linear,
    "lstm": _lstm,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "one_hot": _one_hot,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "scaled_dot_product_attention": _attention,
    "select": _select,
    "silu": _silu,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
"""By operator type."""
