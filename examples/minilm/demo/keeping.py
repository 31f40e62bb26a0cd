"""``--keep``: commands that call the running server, and the wait for its end."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from examples.minilm.demo.console import typed
from examples.minilm.demo.processes import PROGRAM
from examples.minilm.demo.repository import MODEL, PIPELINE
from triton_router.errors import UnavailableError

if TYPE_CHECKING:
    from examples.minilm.demo.console import Console
    from examples.minilm.demo.server import Server

_SENTENCE = "Where is my parcel?"

_SNIPPET = """\
{python} - <<'EOF'
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient("{grpc}")
text = triton.InferInput("TEXT", [2, 1], "BYTES")
text.set_data_from_numpy(np.array([[b"Where is my parcel?"], [b"Has my package been shipped?"]], dtype=object))
first, second = client.infer("{pipeline}", [text]).as_numpy("embedding")
print("cosine:", round(float(first @ second), 3))
EOF"""


def curl_line(server: Server) -> str:
    """Return a command that embeds one sentence over HTTP."""
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [_SENTENCE]}
    url = f"http://{server.http}/v2/models/{PIPELINE}/infer"
    return f"curl -sS -w '\\n' {url} -d {shlex.quote(json.dumps({'inputs': [tensor]}))}"


def python_snippet(server: Server) -> str:
    """Return a command that compares two sentences over gRPC."""
    return _SNIPPET.format(python=typed([Path(sys.executable)]), grpc=server.grpc, pipeline=PIPELINE)


def keep_serving(server: Server, console: Console) -> None:
    """Print how to call the server, and wait until Ctrl-C.

    Raises:
        KeyboardInterrupt: The user ended it.
        UnavailableError: The server ended by itself.
    """
    console.show("\nServing until Ctrl-C. In another terminal, in this directory:\n")
    console.show(f"{curl_line(server)}\n")
    console.show(f"{python_snippet(server)}\n")
    console.show(f"{typed([PROGRAM, 'status', MODEL])}\n")
    status = server.process.wait()
    raise UnavailableError(f"the server ended with status {status}", hint=f"read {server.log}")
