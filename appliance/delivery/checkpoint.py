"""Who may take a message off an association of ours: its own thread, or whoever sends on it, never both.

pynetdicom (3.0.4, association.py) pauses the thread of an association while another thread sends, by an event and a
flag. The flag still says "paused" when the event was set and cleared again before that thread has run, as happens on a
busy machine; then both read, the thread takes the answer away, and whoever asked waits for it until a time limit.
"""

import threading

from pynetdicom.association import Association

_LOOK_EVERY_S = 0.02


class Checkpoint(threading.Event):
    """The event at which an association's thread waits; with it, "paused" is said only by the thread that waits."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.set()

    def clear(self) -> None:
        """Ask the thread to pause; that it was paused before says nothing."""
        super().clear()
        self._association._is_paused = False  # noqa: SLF001 - there is no other way in

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - it is never given
        """Wait until the thread may go on, and keep saying that it is paused until then."""
        while not self.is_set():
            self._association._is_paused = True  # noqa: SLF001
            super().wait(_LOOK_EVERY_S)
        return True


def watch_over(association: Association) -> None:
    """Put a checkpoint of ours into an association that is about to begin."""
    association._reactor_checkpoint = Checkpoint(association)  # noqa: SLF001
