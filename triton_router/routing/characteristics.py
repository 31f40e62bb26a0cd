"""What is known of a model before it has served anything."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ModelCharacteristics:
    """Static properties of one model, read from its file or stated by whoever knows them, never from running it.

    Shapes use -1 for a dynamic dimension. Types are KServe v2 names (``FP32``, ``INT64``, ``BYTES``).

    Attributes:
        parameter_count: Trainable and constant numbers stored in the model.
        flop_count: Floating point operations for one sample, a multiply-add counted as two; 0 if unknown
            (a loop whose trip count is data-dependent).
        memory_footprint_bytes: Bytes of the stored parameters.
        quantization_bits: Bits of a quantised weight, 0 for an unquantised model.
        optimal_batch_size: Batch size recommended for throughput; 1 until measured.
    """

    model_name: str = ""
    model_version: str = "1"
    framework: str = ""
    parameter_count: int = 0
    flop_count: int = 0
    memory_footprint_bytes: int = 0
    has_dynamic_shapes: bool = False
    has_control_flow: bool = False
    has_custom_ops: bool = False
    is_quantized: bool = False
    quantization_bits: int = 0
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    output_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    input_types: dict[str, str] = field(default_factory=dict[str, str])
    output_types: dict[str, str] = field(default_factory=dict[str, str])
    supports_batching: bool = False
    optimal_batch_size: int = 1
    supports_gpu_acceleration: bool = True
    supports_neural_engine: bool = False
    supports_int8_acceleration: bool = False
