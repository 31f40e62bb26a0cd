"""Every mistake a pipeline can hold is found before Triton sees it, and named with its line."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from triton_router.errors import ConfigError, NotFoundError
from triton_router.repository.pipeline import ensemble_config, write_pipeline
from triton_router.repository.pipeline_check import CheckedPipeline, check_pipeline
from triton_router.repository.pipeline_spec import load_pipeline

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    "tok": ("32", "TEXT TYPE_STRING [1]", "ids TYPE_INT64 [-1] | mask TYPE_INT64 [-1]"),
    "bert": (
        "32",
        "ids TYPE_INT64 [-1] | mask TYPE_INT64 [-1] | kind TYPE_INT64 [-1] optional",
        "hidden TYPE_FP32 [-1,4]",
    ),
    "pool": ("16", "hidden TYPE_FP32 [-1,4] | mask TYPE_INT64 [-1]", "vector TYPE_FP32 [4]"),
    "half": ("16", "vector TYPE_FP16 [4]", "vector TYPE_FP16 [4]"),
    "wide": ("16", "vector TYPE_FP32 [8]", "score TYPE_FP32 [1]"),
    "free": ("16", "vector TYPE_FP32 [-1]", "score TYPE_FP32 [1]"),
    "matrix": ("16", "vector TYPE_FP32 [-1,-1]", "score TYPE_FP32 [1]"),
    "unbatched": ("0", "vector TYPE_FP32 [-1,4]", "score TYPE_FP32 [-1,1]"),
    "same": ("8", "a TYPE_FP32 [4]", "b TYPE_FP32 [4]"),
    "bare": ("8", "", ""),
    "typeless": ("8", "a TYPE_INVALID [4]", "b TYPE_FP32 [4]"),
}


def _tensors(kind: str, text: str) -> str:
    lines: list[str] = []
    for entry in filter(None, text.split(" | ")):
        name, datatype, dims, *optional = entry.split()
        extra = "optional: true" if optional else ""
        lines.append(f'{kind} {{ name: "{name}" data_type: {datatype} dims: {dims} {extra} }}')
    return "\n".join(lines)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of small models, described by MODELS."""
    root = tmp_path / "models"
    for name, (batch, inputs, outputs) in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(
            f'backend: "python" max_batch_size: {batch}\n{_tensors("input", inputs)}\n{_tensors("output", outputs)}\n'
        )
    return root


def _check(repository: Path, text: str) -> CheckedPipeline:
    path = repository.parent / "p.yaml"
    path.write_text(textwrap.dedent(text))
    document, spec = load_pipeline(path)
    return check_pipeline(document, spec, repository)


GOOD = """\
name: embed
inputs: {TEXT: text}
outputs: {embedding: vector}
steps:
  - model: tok
    inputs: {TEXT: text}
    outputs: {ids: ids, mask: mask}
  - model: bert
    inputs: {ids: ids, mask: mask}
    outputs: {hidden: hidden}
  - model: pool
    inputs: {hidden: hidden, mask: mask}
    outputs: {vector: vector}
"""


def _then(step: str, outputs: str = "{score: score}") -> str:
    """GOOD with one more step that reads ``vector``."""
    return (
        GOOD.replace("{embedding: vector}", outputs)
        + f"  - model: {step}\n    inputs: {{vector: vector}}\n"
        + ("    outputs: {score: score}\n" if step != "half" else "    outputs: {vector: score}\n")
    )


ONE = """\
name: p
inputs: {x: x}
outputs: {y: y}
steps:
  - model: same
    inputs: {a: x}
    outputs: {b: y}
"""

MISTAKES = {
    "unknown key": (GOOD + "colour: red\n", 14, "colour: unknown key"),
    "unknown key in a step": (GOOD + "    when: never\n", 14, "steps.2.when: unknown key"),
    "missing key": ("name: p\ninputs: {a: a}\nsteps: []\n", 1, "required and missing"),
    "not a mapping": ("- tok\n", 1, "not a mapping"),
    "empty file": ("", 1, "not a mapping"),
    "no steps": (ONE[: ONE.index("steps")] + "steps: []\n", 4, "at least 1 item"),
    "bad name": (GOOD.replace("embed\n", "../embed\n", 1), 1, "name: String should match"),
    "key twice": (GOOD + "name: other\n", 14, "'name' stands twice"),
    "alias": (
        GOOD.replace("{TEXT: text}", "&a {TEXT: text}", 1).replace("{TEXT: text}\n    out", "*a\n    out"),
        6,
        "alias",
    ),
    "unknown model": (GOOD.replace("model: bert", "model: brt"), 8, "model 'brt' is not in the repository"),
    "unknown version": (GOOD.replace("model: bert", "model: bert\n    version: 3"), 9, "no version 3"),
    "unknown input": (
        GOOD.replace("{ids: ids, mask: mask}\n    outputs: {hidden", "{id: ids, mask: mask}\n    outputs: {hidden"),
        9,
        "has no input 'id'",
    ),
    "unknown output": (GOOD.replace("{hidden: hidden}", "{hiden: hidden}"), 10, "has no output 'hiden'"),
    "input not mapped": (
        GOOD.replace("inputs: {ids: ids, mask: mask}", "inputs: {ids: ids}"),
        9,
        "required input 'mask' (INT64 [-1, -1]) of model 'bert' is not mapped",
    ),
    "datatype": (
        _then("half"),
        15,
        "tensor 'vector' is FP32 from output 'vector' of step 3 (pool), but input 'vector' of step 4 (half) takes FP16",
    ),
    "fixed shape": (
        _then("wide"),
        15,
        "is FP32 [-1, 4] from output 'vector' of step 3 (pool), but input 'vector' of step 4 (wide) takes FP32 [-1, 8]",
    ),
    "rank": (_then("matrix"), 15, "takes FP32 [-1, -1, -1]"),
    "readers of an input disagree": (
        ONE.replace("outputs: {y: y}", "outputs: {y: y, s: s}")
        + "  - model: wide\n    inputs: {vector: x}\n    outputs: {score: s}\n",
        9,
        "tensor 'x' is FP32 [-1, 4] from pipeline input 'x', but input 'vector' of step 2 (wide) takes FP32 [-1, 8]",
    ),
    "made twice": (
        GOOD.replace("{hidden: hidden}", "{hidden: mask}"),
        10,
        "tensor 'mask' is made twice: by output 'mask' of step 1 (tok) and by output 'hidden' of step 2 (bert)",
    ),
    "input made again": (
        GOOD.replace("ids: ids, mask: mask}\n  - model: b", "ids: text, mask: mask}\n  - model: b"),
        7,
        "made twice: by pipeline input 'TEXT'",
    ),
    "two inputs one tensor": (GOOD.replace("{TEXT: text}\nout", "{TEXT: text, MORE: text}\nout"), 2, "made twice"),
    "nothing makes it": (
        GOOD.replace("inputs: {hidden: hidden,", "inputs: {hidden: hiden,"),
        12,
        "nothing makes tensor 'hiden'",
    ),
    "output nothing makes": (
        GOOD.replace("{embedding: vector}", "{embedding: vectr}"),
        3,
        "nothing makes tensor 'vectr'",
    ),
    "input nobody reads": (
        GOOD.replace("{TEXT: text}\nout", "{TEXT: text, SPARE: spare}\nout"),
        2,
        "pipeline input 'SPARE' is read by no step",
    ),
    "output nobody reads": (
        _then("free").replace("{score: score}", "{e: vector}", 1),
        16,
        "tensor 'score' is made by output 'score' of step 4 (free) and used by nobody",
    ),
    "input straight to output": (ONE.replace("{y: y}", "{y: y, z: x}", 1), 3, "comes straight from pipeline input 'x'"),
    "one name in and out": (ONE.replace("{y: y}", "{x: y}", 1), 3, "'x' names an input and an output"),
    "one tensor two outputs": (ONE.replace("{y: y}", "{y: y, z: y}", 1), 3, "goes out as 'y' already"),
    "cycle": (
        (
            "name: p\ninputs: {x: x}\noutputs: {y: y}\nsteps:\n"
            "  - model: same\n    inputs: {a: two}\n    outputs: {b: one}\n"
            "  - model: same\n    inputs: {a: one}\n    outputs: {b: two}\n"
            "  - model: same\n    inputs: {a: x}\n    outputs: {b: y}\n"
        ),
        5,
        "the steps wait for each other: step",
    ),
    "step feeds itself": (
        ONE.replace("{y: y}", "{y: y, z: z}", 1) + "  - model: same\n    inputs: {a: z}\n    outputs: {b: z}\n",
        8,
        "the steps wait for each other: step 2 (same) -> step 2 (same)",
    ),
    "calls itself": (ONE.replace("name: p", "name: same"), 5, "pipeline 'same' would call itself"),
    "batch too large": ("max_batch_size: 17\n" + GOOD, 1, "17 is more than model 'pool' takes (16)"),
    "undeclared tensors": (ONE.replace("model: same", "model: bare"), 5, "declares no inputs or no outputs"),
    "unusable datatype": (ONE.replace("model: same", "model: typeless"), 5, "TYPE_INVALID is not usable"),
}


@pytest.mark.parametrize(("text", "line", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line(repository: Path, text: str, line: int, says: str) -> None:
    """The error names file, line and fault, and has a hint."""
    with pytest.raises(ConfigError) as caught:
        _check(repository, text)
    assert says in caught.value.message
    assert f"p.yaml:{line}:" in caught.value.message
    assert caught.value.hint


def test_the_good_pipeline_passes_with_the_smallest_batch(repository: Path) -> None:
    """Without a mistake the tensors have the types of their makers, and the batch is the smallest of the steps."""
    checked = _check(repository, GOOD)
    assert checked.max_batch_size == 16
    assert {name: str(tensor.type) for name, tensor in checked.tensors.items()} == {
        "text": "BYTES [-1, 1]",
        "ids": "INT64 [-1, -1]",
        "mask": "INT64 [-1, -1]",
        "hidden": "FP32 [-1, -1, 4]",
        "vector": "FP32 [-1, 4]",
    }


def test_a_dynamic_dimension_agrees_with_a_fixed_one(repository: Path) -> None:
    """-1 on either side leaves the comparison to run time, as Triton does."""
    assert _check(repository, _then("free")).max_batch_size == 16


def test_a_step_without_batching_makes_the_batch_part_of_the_shape(repository: Path) -> None:
    """A non-batching model takes what a batching one makes, and the ensemble declares whole shapes."""
    checked = _check(repository, _then("unbatched"))
    assert checked.max_batch_size == 0
    config = ensemble_config(checked)
    assert list(config.input[0].dims) == [-1, 1]
    assert list(config.output[0].dims) == [-1, 1]


def test_an_input_is_as_narrow_as_its_narrowest_reader(repository: Path) -> None:
    """An input read as [-1] and as [4] is declared as [4], whichever reader stands first."""
    text = ONE.replace("{y: y}", "{y: y, s: s}", 1)
    text = text.replace("steps:\n", "steps:\n  - model: free\n    inputs: {vector: x}\n    outputs: {score: s}\n")
    assert str(_check(repository, text).tensors["x"].type) == "FP32 [-1, 4]"


def test_steps_may_stand_in_any_order(repository: Path) -> None:
    """Order follows from the tensors, not from the file."""
    head, *steps = GOOD.split("  - model: ")
    shuffled = head + "".join(f"  - model: {step}" for step in reversed(steps))
    assert set(_check(repository, shuffled).tensors) == set(_check(repository, GOOD).tensors)


def test_an_inner_tensor_yields_to_a_public_name(repository: Path) -> None:
    """A tensor inside that is called like an output outside is renamed, not confused with it."""
    text = GOOD.replace("{embedding: vector}", "{hidden: vector}")
    steps = ensemble_config(_check(repository, text)).ensemble_scheduling.step
    assert dict(steps[1].output_map) == {"hidden": "hidden_inner"}
    assert dict(steps[2].input_map) == {"hidden": "hidden_inner", "mask": "mask"}
    assert dict(steps[2].output_map) == {"vector": "hidden"}


def test_a_pipeline_cannot_reach_itself_through_an_ensemble(repository: Path) -> None:
    """A step that is an ensemble around this pipeline's own name is refused."""
    write_pipeline(_check(repository, ONE), repository, source="p.yaml")
    outer = ONE.replace("name: p", "name: outer").replace("model: same", "model: p").replace("{a: x}", "{x: x}")
    outer = outer.replace("{b: y}", "{y: y}")
    write_pipeline(_check(repository, outer), repository, source="outer.yaml")
    inner = outer.replace("name: outer", "name: p").replace("model: p", "model: outer")
    with pytest.raises(ConfigError, match="'p' would call itself through 'outer'"):
        _check(repository, inner)


def test_a_router_without_tensors_is_read_from_its_target(repository: Path) -> None:
    """A routed model that leaves its inputs to its targets can be a step."""
    (repository / "routed" / "1").mkdir(parents=True)
    (repository / "routed" / "config.pbtxt").write_text('backend: "router"\n')
    (repository / "routed" / "router.yaml").write_text("targets:\n  - {name: only, model: same}\n")
    assert str(_check(repository, ONE.replace("model: same", "model: routed")).tensors["y"].type) == "FP32 [-1, 4]"


def test_a_missing_repository_is_named(repository: Path) -> None:
    """A wrong --repository is said as such."""
    path = repository.parent / "p.yaml"
    path.write_text(GOOD)
    with pytest.raises(NotFoundError, match="absent is not a directory"):
        check_pipeline(*load_pipeline(path), repository / "absent")
