"""The collector reads every message in order, over TLS with certificates on both sides, and none twice without need."""

import re
from pathlib import Path

import pytest

from appliance.audit import trail
from appliance.audit.feed import CollectorFeed, waiting
from appliance.audit.syslog import Collector, CollectorAway, framed, syslog_message
from appliance.errors import SettingsError
from appliance.records import Database
from appliance.records.tables import CaseState
from appliance.settings import Settings
from appliance.settings.box import Peer
from appliance.settings.tls import calling_context
from tests.support.audit_schema import faults_of
from tests.support.certificates import Authority
from tests.support.config_folder import make_settings
from tests.support.rows import NOON, new_case
from tests.support.syslog_collector import Mood, SyslogCollector

HEADER = re.compile(
    rb"<8[45]>1 2026-01-02T12:00:00\.000000Z \S+ delineate \S+ DICOM\+RFC3881 - \xef\xbb\xbf(<.*>)", re.DOTALL
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def settings_for(folder: Path, collector: SyslogCollector, authority: Authority) -> Settings:
    table = {"collector": f"127.0.0.1:{collector.port}", "collector_timeout_s": 5.0}
    return make_settings(folder, {"audit": table, "tls": authority.issue("box").table})


def record(database: Database, event: str, case_id: int | None = None, **fields: object) -> None:
    with database.transaction() as tx:
        trail.record(tx, event, at=NOON, actor="assembler", case_id=case_id, **fields)


def test_what_happened_is_told_in_order_with_whose_case_it_was(
    database: Database, tmp_path: Path, authority: Authority
) -> None:
    case_id = new_case(database, CaseState.SENDING, patient_id="P7")
    record(database, "process_started", process="assembler", version="1")
    record(database, "slices_received", case_id, count=10, total=10)
    record(database, "quality_assessed", case_id, words="well", to_look_at=[])
    record(database, "delivery_accepted", case_id, destination="pacs", object="structure set", status="0x0000")
    with SyslogCollector(authority.issue("collector").files) as collector:
        feed = CollectorFeed(settings_for(tmp_path, collector, authority), database)
        assert feed.send_waiting(NOON) == 3
        assert feed.send_waiting(NOON) == 0, "nothing new"
    told = [match[1] for message in collector.messages if (match := HEADER.fullmatch(message))]
    assert [faults_of(xml) for xml in told] == [[], [], []]
    assert [re.findall(rb'EventID csd-code="(\d+)"', xml) for xml in told] == [[b"110100"], [b"110104"], [b"110104"]]
    assert [b'"P7"' in xml for xml in told] == [False, True, True]
    assert waiting(database) == 0
    assert collector.connections == [Mood.GOOD]


def test_the_next_process_goes_on_where_this_one_ended(
    database: Database, tmp_path: Path, authority: Authority
) -> None:
    record(database, "process_started", process="assembler", version="1")
    with SyslogCollector(authority.issue("collector").files) as collector:
        settings = settings_for(tmp_path, collector, authority)
        CollectorFeed(settings, database).send_waiting(NOON)
        record(database, "process_stopped", process="assembler")
        CollectorFeed(settings, database).send_waiting(NOON)
    assert len(collector.messages) == len(collector.distinct) == 2


def test_without_a_collector_nobody_is_told(database: Database, tmp_path: Path) -> None:
    record(database, "process_stopped", process="assembler")
    assert CollectorFeed(make_settings(tmp_path), database).send_waiting(NOON) == 0
    assert waiting(database) == 1


@pytest.mark.parametrize("mood", [Mood.DROPS, Mood.KILLED, Mood.HALF_CLOSED, Mood.PLAIN])
def test_what_a_collector_did_not_read_to_the_end_is_not_taken_as_read(authority: Authority, mood: Mood) -> None:
    files = authority.issue("collector").files
    with (
        SyslogCollector(files, [mood]) as collector,
        pytest.raises(CollectorAway, match=r"127\.0\.0\.1:[0-9]+ is away: "),
    ):
        over_tls(collector, authority).deliver([b"x" * 1_000] * 50)


def test_a_collector_that_is_another_than_expected_hears_nothing(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Elsewhere").issue("collector").files
    wrong_name = authority.issue("other", host="127.0.0.9").files
    for files in (stranger, wrong_name):
        with SyslogCollector(files) as collector, pytest.raises(CollectorAway, match="certificate"):
            over_tls(collector, authority).deliver([b"secret"])
        assert collector.messages == []


def test_a_collector_may_be_told_plainly_if_one_asks_for_it(database: Database, tmp_path: Path) -> None:
    record(database, "process_stopped", process="assembler")
    with SyslogCollector(None) as collector:
        table = {"collector": f"127.0.0.1:{collector.port}", "collector_tls": False}
        assert CollectorFeed(make_settings(tmp_path, {"audit": table}), database).send_waiting(NOON) == 1
    assert len(collector.messages) == 1


def test_a_collector_over_tls_without_certificates_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"needs a table \[tls\]"):
        make_settings(tmp_path, {"audit": {"collector": "arr.hospital.example:6514"}})


def test_a_message_of_any_length_is_framed_by_its_octets(authority: Authority) -> None:
    message = syslog_message("é".encode() * 40_000, at=NOON, host="box 1\n", process="", warning=True)
    assert message.startswith(
        b"<84>1 2026-01-02T12:00:00.000000Z box1 delineate - DICOM+RFC3881 - \xef\xbb\xbf\xc3\xa9"
    )
    assert framed(message) == str(len(message)).encode() + b" " + message
    with SyslogCollector(authority.issue("collector").files) as collector:
        over_tls(collector, authority).deliver([message, b"short"])
    assert collector.messages == [message, b"short"]


def over_tls(collector: SyslogCollector, authority: Authority) -> Collector:
    expected = Peer(ae_title="COLLECTOR", host="127.0.0.1", port=collector.port, tls=True)
    context = calling_context(authority.issue("box").files, expected)
    return Collector("127.0.0.1", collector.port, 2.0, context)
