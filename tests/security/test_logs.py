"""The log: one event to a line, whoever writes it, and nothing of what a peer or a header says."""

import json
import subprocess
import sys

TALK = """
import logging, warnings
import structlog
from appliance.running.log_lines import log_to_stderr

log_to_stderr()
log = structlog.get_logger()

def contour(patient="PLANTED^NAME"):
    try:
        raise RuntimeError("no room")
    except RuntimeError:
        log.exception("contouring_failed", case=1)
        logging.getLogger("kombu").exception("lost\\nconnection")

contour()
warnings.warn("Invalid value for VR DA: 'PLANTED'")
logging.getLogger("pydicom.valuerep").warning("PLANTED")
logging.getLogger("pynetdicom.utils").error("Invalid 'Calling AE Title' value 'PLANTED'")
log.info("association_refused", source_ae="EVIL\\r\\n{}\\x1b]0;PLANT")
"""


def test_every_line_is_one_event_and_none_holds_what_was_in_a_variable_or_a_header() -> None:
    done = subprocess.run([sys.executable, "-c", TALK], capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["contouring_failed", "lost\nconnection", "association_refused"]
    assert events[0]["exception"][0]["exc_value"] == "no room"
    assert (events[1]["logger"], events[1]["level"]) == ("kombu", "error")
    assert "PLANTED" not in done.stderr
    assert "\x1b" not in done.stderr
