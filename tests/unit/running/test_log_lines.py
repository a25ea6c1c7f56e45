"""A log that cannot be written costs lines of the log, never the work."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.running.log_lines import SinkThatMayBreak

PROGRAM = """
import logging, warnings
import structlog
from appliance.running.log_lines import log_to_stderr
log_to_stderr()
for number in range(2000):
    structlog.get_logger().info("event", number=number, text="\\udc80é")
print("to standard output")
warnings.warn("of a library")
logging.getLogger("library").warning("of a library")
open(__import__("sys").argv[1], "w").write("done")
"""


@pytest.mark.parametrize("sink", ["full disk", "closed pipe", "closed", "reader that hangs"])
def test_whatever_is_wrong_with_the_log_the_work_is_done_and_the_exit_is_good(sink: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    if sink == "closed pipe":
        os.close(reading)
    shell = {"full disk": ">/dev/full 2>&1", "closed": ">&- 2>&-"}.get(sink, "")
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", PROGRAM, str(tmp_path / "done")]
    code = subprocess.run(command, stdout=writing, stderr=writing, timeout=60, check=False).returncode
    os.close(writing)
    if sink != "closed pipe":
        os.close(reading)
    assert code == 0
    assert (tmp_path / "done").read_text() == "done"


def test_lines_get_through_whole_and_after_a_reader_that_hung_reads_again() -> None:
    reading, writing = os.pipe()
    sink = SinkThatMayBreak(writing)
    line = "x" * 5_000 + "\n"
    while sink.lost == 0:
        sink.write(line)
    assert os.read(reading, 5_001).decode() == line
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        while os.read(reading, 65_536):
            pass
    assert sink.write("again\n") == 6
    assert os.read(reading, 65_536) == b"again\n"
    assert sink.lost == 1
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_a_sink_that_is_no_terminal_says_so() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert not SinkThatMayBreak(writing).isatty()
    os.close(writing)
    assert not SinkThatMayBreak(writing).isatty()
