"""Who sits at this terminal: the account that logged in, also behind `sudo`."""

import os
import pwd
from datetime import datetime
from pathlib import Path

from appliance.casework.operating import Operator

_NOBODY_LOGGED_IN = 2**32 - 1
"""What the kernel says of processes that no login began, as in a container (proc(5), loginuid)."""


def operator_here(at: datetime, why: str) -> Operator:
    """The person who gives this command, for the trail.

    Args:
        at: when.
        why: in the person's own words.
    """
    return Operator(_account(), at, why)


def _account(loginuid: Path = Path("/proc/self/loginuid")) -> str:
    user = os.getuid()
    if loginuid.exists() and (login := int(loginuid.read_text())) != _NOBODY_LOGGED_IN:
        user = login
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a container may run under a number that has no name
        return f"uid {user}"
