"""Comparing two images in a process of its own: native decoders of compressed pixels can crash on hostile bytes.

What crashes there is a refusal here, and the assembler goes on.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeAlias

from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import same_image
from appliance.errors import Reason, SliceRefused

IsSame: TypeAlias = Callable[[Path, Path], bool]


def files_hold_one_image(first: Path, second: Path) -> bool:
    """Tell whether two files hold the same image, whatever their transfer syntaxes, by decoding both here.

    Raises:
        SliceRefused: one of them cannot be decoded.
    """
    return same_image(parse_slice(first), parse_slice(second))


def _leave_with_parent() -> None:
    """In the child: end when the assembler ends, even by kill -9; the pool's queue would keep it waiting for ever."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


class IsolatedComparison:
    """A child process that decodes and compares; started when it is first needed, and again after a crash."""

    def __init__(self) -> None:
        self._child: ProcessPoolExecutor | None = None

    def __call__(self, first: Path, second: Path) -> bool:
        """Tell whether two files hold the same image, whatever their transfer syntaxes.

        Raises:
            SliceRefused: one of them cannot be decoded, or decoding it crashed.
        """
        if self._child is None:
            self._child = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_leave_with_parent)
        try:
            return self._child.submit(files_hold_one_image, first, second).result()
        except BrokenProcessPool as crash:
            self.stop()
            sentence = "decoding its pixels crashed the decoder; export it again without compression"
            raise SliceRefused(Reason.PIXELS_UNDECODABLE, sentence) from crash

    def stop(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.shutdown()
            self._child = None
