"""Ports that nobody uses, outside the range from which the kernel takes ports for outgoing connections."""

import random
import socket

_FIRST, _LAST = 20_000, 32_000
_DICE = random.SystemRandom()


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    while True:
        port = _DICE.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            try:
                probe.close()
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
        return port
