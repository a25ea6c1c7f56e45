"""A log that cannot be written costs lines of the log, never the work."""

import json
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


HOSTILE = """
import logging, sys
import structlog
from hypothesis import HealthCheck, given, settings, strategies as st
from appliance.running.log_lines import log_to_stderr
log_to_stderr()
written = 0
CONTROLS = ["\\n", "\\r\\n", "\\x1b[2J", '"}', '{"event": "forged"}', "\\u2028", "\\x00", "\\udcff", "\\x85"]
controls = st.sampled_from(CONTROLS)
@settings(max_examples=int(sys.argv[1]), database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(controls | st.text(st.characters(), max_size=9), max_size=4).map("".join))
def write(text):
    global written
    structlog.get_logger().info("received", source_ae=text)
    logging.getLogger("library").warning("association from %s", text)
    written += 2
write()
open(sys.argv[2], "w").write(str(written))
"""


def test_whatever_a_peer_calls_itself_each_event_is_one_line_that_can_be_parsed(tmp_path: Path) -> None:
    log, count = tmp_path / "log", tmp_path / "count"
    with log.open("wb") as stream:
        subprocess.run([sys.executable, "-c", HOSTILE, "300", str(count)], stderr=stream, cwd=tmp_path, check=True)
    lines = log.read_bytes().splitlines()
    assert len(lines) == int(count.read_text())
    assert {json.loads(line)["event"].partition(" ")[0] for line in lines} == {"received", "association"}
    assert not any(byte in line for line in lines for byte in b"\x1b\x00\r")


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
