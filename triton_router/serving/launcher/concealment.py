"""Takes a secret off the command line of a running child: every user of the machine can read that.

Triton takes the key of its administrative APIs nowhere but there. It copies its words when it starts; from then on the
place where the kernel looks for them may say anything.
"""

from __future__ import annotations

from pathlib import Path

_FIRST, _END = 45, 46
"""Where the words lie: fields 48 and 49 of ``/proc/PID/stat``, counted from behind the name."""


def conceal(pid: int, secret: str) -> bool:
    """Overwrite a secret among the words of a process, wherever it stands; asterisks are left.

    Call it when the process has read its words: a server that answers has.

    Args:
        pid: A child of this process; others may not be touched.
        secret: In ASCII.

    Returns:
        Whether nothing of it is left: False where the system does not allow it, as without ``/proc``.
    """
    process, hidden = Path("/proc", str(pid)), secret.encode("ascii")
    try:
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        first, end = int(fields[_FIRST]), int(fields[_END])
        with (process / "mem").open("r+b", buffering=0) as memory:
            memory.seek(first)
            words = memory.read(end - first)
            memory.seek(first)
            memory.write(words.replace(hidden, b"*" * len(hidden)))
        return hidden not in (process / "cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return False
