"""Stubs that somebody has stopped (SIGSTOP), and that must not go on once a request has waited for them in vain.

The server gives up a request that its stub does not take within a second, and the memory that it lies in. A stub that
goes on after that reads this memory, crashes, and often ends the server, which waits for a lock that the stub held
(measured on 2.51: four times of four with two requests). So it is ended before the server gives up.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triton_router.serving.stub_processes import is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from triton_router.serving.stub_processes import Seen, Stub

LOOKS = 4
"""Looks one after the other that find it stopped, of which there are five in a second. Counted, and not timed: whoever
looks may have been stopped as well, with everything else, as by a terminal's Ctrl-Z."""


@dataclass(slots=True)
class StoppedStubs:
    """Tells which of a server's stubs have been stopped for long, while the server itself goes on.

    Args:
        server: Its process id.
    """

    server: int
    _looks: dict[Stub, int] = field(default_factory=dict["Stub", int])

    def update(self, seen: Seen) -> list[Stub]:
        """Return those that have been stopped for `LOOKS` looks with this one; each once, until it goes on."""
        if not seen.stopped or is_stopped(self.server):
            self._looks.clear()
            return []
        self._looks = {stub: self._looks.get(stub, 0) + 1 for stub in seen.live if stub.pid in seen.stopped}
        return [stub for stub, looks in self._looks.items() if looks == LOOKS]


def end_stopped(stub: Stub, kill: Callable[[int, int], None] = os.kill) -> str:
    """End a stub that is stopped, without its going on; return why it cannot be, "" if it can, or went on meanwhile."""
    try:
        if is_stopped(stub.pid):
            kill(stub.pid, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"it cannot be ended: {error.strerror}"
    return ""
