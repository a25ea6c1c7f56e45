"""Asking the PACS how many slices a series has, aside: one duty for each PACS, so that a slow one delays only its own.

The assembler leaves the question in the case's row and finds the answer there; whoever waits, waits no longer than
the protocol says.
"""

from datetime import datetime

from appliance.audit import trail
from appliance.intake.calling import NoAnswer
from appliance.intake.finding import count_slices
from appliance.records import Database, queries
from appliance.records.tables import Case
from appliance.settings import Settings

ACTOR = "caretaker"


class Counting:
    """Asks one PACS about every series whose count is wanted from it."""

    def __init__(self, settings: Settings, database: Database, peer: str) -> None:
        self._settings = settings
        self._database = database
        self._peer = peer

    def work(self, now: datetime) -> int:
        """One round; returns how many series it asked about."""
        with self._database.reading() as tx:
            wanted = [case for case in queries.cases_to_count(tx) if self._is_asked_about(case)]
        for case in wanted:
            self._ask(case, now)
        return len(wanted)

    def _is_asked_about(self, case: Case) -> bool:
        return self._settings.completion_rules(case.foreseen_protocol, case.source_ae).peer == self._peer

    def _ask(self, asked: Case, now: datetime) -> None:
        peer, count, sentence = self._settings.peers[self._peer], None, None
        try:
            uids = (asked.study_instance_uid, asked.series_instance_uid)
            count = count_slices(self._settings, peer, *uids, asked.slices)
        except NoAnswer as problem:
            sentence = f"{self._peer}: {problem}"
        with self._database.transaction() as tx:
            case = queries.case_by_id(tx, asked.id)
            if case is None:
                return
            is_news = (count, sentence) != (case.expected_slices, case.count_sentence) or case.count_asked_at is None
            case.count_wanted_at, case.count_asked_at = None, now
            case.expected_slices, case.count_sentence = count, sentence
            if not is_news:
                return
            if count is None:
                fields = {"peer": self._peer, "sentence": sentence}
                trail.record(tx, "count_unanswered", at=now, actor=ACTOR, case_id=case.id, **fields)
            else:
                told = {"peer": self._peer, "expected": count, "here": case.slices}
                trail.record(tx, "count_answered", at=now, actor=ACTOR, case_id=case.id, **told)
