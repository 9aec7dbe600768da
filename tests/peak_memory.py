"""The most memory a process has held: its own, not that of the one which started it."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Bytes of resident memory at the highest, since this program was started.

    Linux hands `ru_maxrss` on to a child from the process that starts it: under a test runner of 5 GB each child
    seems to have held 5 GB. `VmHWM` begins anew with the program.
    """
    if _STATUS.is_file():
        (line,) = (one for one in _STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
