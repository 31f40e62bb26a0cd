"""``triton-router pipeline``: write a Triton ensemble from a short YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triton_router.cli import output
from triton_router.cli.command import Subparsers, add_parser

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Write a Triton ensemble from a short YAML file. Models, tensor names, datatypes and shapes are checked against
the repository first, so that what is wrong is said here, with its line, and not by Triton when it loads.

The file:
  name: minilm-embed
  inputs: {TEXT: text}                # what a client sends: the tensor it becomes
  outputs: {embedding: embedding}     # what a client gets: the tensor it is
  steps:
    - model: minilm-tokenize
      inputs: {TEXT: text}            # the model's input: the tensor it reads
      outputs: {input_ids: ids, attention_mask: mask}   # the model's output: the tensor it makes
    - model: minilm                   # a routed model, or an ensemble, is a model like any other
      inputs: {input_ids: ids, attention_mask: mask}
      outputs: {last_hidden_state: hidden}
    - model: minilm-pool
      inputs: {hidden: hidden, mask: mask}
      outputs: {embedding: embedding}
Optional: 'version: 2' in a step, 'max_batch_size: 4' at the top (default: the smallest of the steps')."""

_EXAMPLES = """\
  triton-router pipeline minilm.yaml --repository models
  triton-router pipeline minilm.yaml --repository models --check    # writes nothing"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of this command."""
    parser = add_parser(
        subparsers,
        "pipeline",
        summary="write an ensemble from a short YAML file",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="the pipeline")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the model repository")
    parser.add_argument("--check", action="store_true", help="only check; write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check the pipeline, write it, and print its tensors."""
    # These bring protobuf and pydantic; --help stays quick without them.
    from triton_router.repository.pipeline import write_pipeline
    from triton_router.repository.pipeline_check import check_pipeline
    from triton_router.repository.pipeline_spec import load_pipeline

    document, spec = load_pipeline(args.file)
    checked = check_pipeline(document, spec, args.repository)
    directory, done = args.repository / spec.name, "checked"
    if not args.check:
        directory, done = write_pipeline(checked, args.repository, source=args.file.name)
    if args.json:
        output.print_json(
            {
                "name": spec.name,
                "directory": str(directory),
                "done": done,
                "max_batch_size": checked.max_batch_size,
                "tensors": [
                    {
                        "name": tensor.name,
                        "datatype": tensor.type.datatype,
                        "shape": list(tensor.type.shape),
                        "maker": tensor.maker,
                        "readers": tensor.readers,
                    }
                    for tensor in checked.tensors.values()
                ],
            }
        )
        return 0
    output.print_table(
        ["tensor", "type", "from", "to"],
        [[t.name, t.type, t.maker, ", ".join(t.readers)] for t in checked.tensors.values()],
    )
    output.note(f"{done}: {directory} (largest batch: {checked.max_batch_size or 'none, it does not batch'})")
    if done in {"written", "updated"}:
        output.hint(f"load it with: triton-router models load {spec.name} --repository {args.repository}")
    return 0
