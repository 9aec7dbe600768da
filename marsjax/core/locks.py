"""A locked file, by which a process tells others that it uses what lies beside it; the lock goes with the process."""

import contextlib
import os
from typing import TextIO


def taken_by(file: TextIO) -> str | None:
    """Locks a file until it is closed, and writes into it which process this is, as "123 on HOST".

    Args:
      file: opened by "a+", so that what another process wrote in it stays.

    Returns what a process wrote that holds the lock already, else None. On a file system without locks nothing is
    locked.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read(100).strip()
    except OSError:  # a file system without locks
        return None
    file.truncate(0)
    file.write(f"{os.getpid()} on {os.uname().nodename}\n")
    with contextlib.suppress(OSError):  # a full disk, which whoever writes next finds
        file.flush()
    return None
