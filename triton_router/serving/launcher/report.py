"""Why models failed to load, taken from the server's log and said in one line each."""

from __future__ import annotations

import re

_FAILED = re.compile(
    r"failed to load (?:model )?'(?P<model>[^']+)'(?: version (?P<version>\d+))?"
    r"(?: at version (?P<at>\d+))?: (?P<reason>.*)"
)
_POLLING = re.compile(r"Poll failed for model directory \'(?P<model>[^\']+)\': (?P<reason>.*)")
_STUCK = re.compile(r"Failed to preinitialize Python stub: (?P<reason>.*/(?P<model>[^/']+)/\d+/model\.py.*)")
"""After this line the server waits for ever for a stub that has ended (seen on 2.51)."""
_LOADING = re.compile(r'"loading: (?P<model>.+):\d+"')
_LOADED = re.compile(r"\"(?:successfully loaded|failed to load) '(?P<model>[^']+)'")
_FATAL = re.compile(r"^(?:error|tritonserver): (?P<reason>.*)", re.IGNORECASE)
_HARMLESS = ("CudaDriverHelper has not been initialized", "Failed to initialize NVML")
"""Errors that every start on a machine without a GPU logs."""
_CONSEQUENCE = re.compile(r"^creating server: ")
"""What the server says last of all, when what it says about has been logged before."""
_DETAIL = re.compile(r"^[A-Z_]+:.*\{created_time:")
"""A status of the gRPC library, dumped whole; the server's own error, which follows, has the reason in it."""
_ENTRY = re.compile(r"^[IWEF]\d{4} |^\+-")
_MAXIMUM_LINES = 80


class FailureReport:
    """Reads a server's log line by line and keeps what went wrong.

    A reason may run over several lines (a Python traceback); it ends where the next log entry begins. Its last
    line is the one that says what happened.
    """

    def __init__(self) -> None:
        self._failures: dict[str, list[str]] = {}
        self._fatal: list[str] = []
        self._open: list[str] | None = None
        self._loading: dict[str, None] = {}
        self.stuck = False
        """Whether the server will neither become ready nor end by itself."""

    def feed(self, line: bytes) -> None:
        """Take one line of the log."""
        text = line.decode("utf-8", "replace").rstrip("\n")
        if (stuck := _STUCK.search(text)) is not None:
            self.stuck = True
            self._failures[stuck["model"]] = [stuck["reason"]]
        self._follow_loading(text)
        entry = _ENTRY.match(text) is not None
        found = _FAILED.search(text) or _POLLING.search(text) if text.startswith("E") else None
        if found is not None:
            self._open = self._failures[found["model"]] = [found["reason"]]
        elif entry:
            self._open = None
            if text.startswith("E") and "] " in text:
                self._keep_fatal(text.split("] ", 1)[1])
        elif self._open is not None and len(self._open) < _MAXIMUM_LINES:
            self._open.append(text)
        elif (fatal := _FATAL.match(text)) is not None:
            self._keep_fatal(fatal["reason"])

    @property
    def failures(self) -> dict[str, str]:
        """Model to the reason it failed to load, in one line."""
        return {model: _one_line(lines) for model, lines in self._failures.items()}

    @property
    def loading(self) -> list[str]:
        """Models whose load has begun and not ended."""
        return list(self._loading)

    @property
    def errors(self) -> list[str]:
        """The errors that are not about one model's load, the likeliest cause first.

        What ended the server was logged last, so the last comes first; what only passes another error on comes
        after it.
        """
        said = dict.fromkeys(text.strip('" ') for text in reversed(self._fatal))
        # Sorting keeps the order of equals.
        ordered = sorted(said, key=lambda text: _CONSEQUENCE.match(text) is not None)
        own = [text for text in ordered if not _DETAIL.match(text)]
        return own or ordered

    def summary(self, prefix: str = "") -> str:
        """Return every failure in one text, or nothing."""
        text = "; ".join(f"model {model!r}: {reason}" for model, reason in self.failures.items())
        return prefix + text if text else ""

    def _follow_loading(self, text: str) -> None:
        if (begun := _LOADING.search(text)) is not None:
            self._loading[begun["model"]] = None
        elif (ended := _LOADED.search(text)) is not None:
            self._loading.pop(ended["model"], None)

    def _keep_fatal(self, text: str) -> None:
        if not any(harmless in text for harmless in _HARMLESS):
            self._fatal = [*self._fatal[-4:], text]


def _one_line(lines: list[str]) -> str:
    """Return the message without a traceback's frames, which follow an empty line."""
    text = "\n".join(lines).replace("\\n", "\n")
    message = text.split("\n\nAt:")[0]
    return " ".join(message.split()).strip('" ')
