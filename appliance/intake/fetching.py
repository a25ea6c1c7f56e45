"""Fetching by ourselves: what a PACS has, what of it a protocol would take and is not here yet, and getting that."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from appliance.audit import trail
from appliance.clock import now_utc
from appliance.errors import SettingsError
from appliance.intake.calling import NoAnswer
from appliance.intake.finding import FoundSeries, FoundStudy, find_images, find_series, find_studies
from appliance.intake.retrieving import Fetched, Wanted, retrieve
from appliance.records import Database, queries
from appliance.settings import Peer, Protocol, Settings
from appliance.spool import Spool


class Verdict(StrEnum):
    """What is done with a series that was found."""

    FETCH = "fetch"
    HERE = "here already"
    NO_PROTOCOL = "no protocol takes it"


@dataclass(frozen=True, slots=True)
class Choice:
    """A series that was found, and what is to be done with it.

    Attributes:
        wanted: what is fetched of it, where it is fetched.
        words: why it is not, or how much of it is.
    """

    series: FoundSeries
    verdict: Verdict
    words: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for.

    Attributes:
        keys: of the STUDY level, by keyword.
        series_uid: only this series; empty for all.
        protocols: only series that one of these would take; None for every CT series.
        strict: an attribute that the PACS does not tell speaks against a series; else it does not matter.
    """

    keys: Mapping[str, str]
    series_uid: str = ""
    protocols: tuple[Protocol, ...] | None = ()
    strict: bool = False


class Fetcher:
    """Finds and fetches from one PACS.

    Args:
        settings: of this box.
        database: what is here already.
        spool: where C-GET puts what comes.
        peer: the PACS's name in peers.toml.
        actor: on whose behalf, for the trail.

    Raises:
        SettingsError: there is no such peer, or it is not to be asked.
    """

    def __init__(self, settings: Settings, database: Database, spool: Spool, peer: str, actor: str) -> None:
        self._settings, self._database, self._spool = settings, database, spool
        self._name, self._actor = peer, actor
        self._peer = _queried_peer(settings, peer)

    def plan(self, question: Question) -> list[Choice]:
        """Ask the PACS, and decide for each CT series that it has.

        Raises:
            NoAnswer: it cannot be asked; the trail says so too.
        """
        try:
            choices = [self._choose(series, question) for series in self._found(question) if series.modality == "CT"]
        except NoAnswer as problem:
            self._remember("fetch_failed", peer=self._name, sentence=str(problem))
            raise
        wanted = sum(choice.verdict is Verdict.FETCH for choice in choices)
        self._remember("peer_queried", peer=self._name, found=len(choices), wanted=wanted)
        return choices

    def fetch(self, choice: Choice, on_object: Callable[[int], None] = lambda _count: None) -> Fetched:
        """Fetch a series; what came before something broke is kept, and the next time it is not fetched again.

        Raises:
            NoAnswer: the PACS did not send it; the trail says so too.
        """
        uid = choice.series.series_instance_uid
        try:
            fetched = retrieve(self._settings, self._spool, self._peer, choice.wanted, on_object)
        except NoAnswer as problem:
            self._remember("fetch_failed", peer=self._name, sentence=str(problem), series_instance_uid=uid)
            raise
        how = f"C-{self._peer.retrieve.upper()}"
        told = {"peer": self._name, "objects": fetched.came, "how": how, "problem": fetched.problem}
        self._remember("series_fetched", series_instance_uid=uid, **told)
        return fetched

    def _found(self, question: Question) -> Iterable[FoundSeries]:
        if not question.keys:
            nowhere = FoundStudy(study_instance_uid="", study_description="")
            return find_series(self._settings, self._peer, nowhere, question.series_uid)
        studies = find_studies(self._settings, self._peer, question.keys)
        found = [find_series(self._settings, self._peer, study, question.series_uid) for study in studies]
        return [series for of_one in found for series in of_one]

    def _choose(self, series: FoundSeries, question: Question) -> Choice:
        wanted = Wanted(series.study_instance_uid, series.series_instance_uid)
        misfits = (
            None if question.protocols is None else self._misfits(series, question.protocols, strict=question.strict)
        )
        if misfits:
            return Choice(series, Verdict.NO_PROTOCOL, "; ".join(misfits), wanted)
        with self._database.reading() as tx:
            here = queries.sop_instance_uids_here(tx, series.series_instance_uid)
        if not here:
            return Choice(series, Verdict.FETCH, "all of it", wanted)
        if series.instances is not None and len(here) >= series.instances:
            return Choice(series, Verdict.HERE, f"{len(here)} objects of it came before", wanted)
        uids = (series.study_instance_uid, series.series_instance_uid)
        missing = tuple(sorted(find_images(self._settings, self._peer, *uids) - here))
        if not missing:
            return Choice(series, Verdict.HERE, f"{len(here)} objects of it came before", wanted)
        words = f"{len(missing)} that are missing; {len(here)} are here"
        return Choice(series, Verdict.FETCH, words, Wanted(*uids, missing))

    def _misfits(self, series: FoundSeries, protocols: Iterable[Protocol], *, strict: bool) -> list[str]:
        """Why no protocol takes it; empty when one does."""
        attributes = {
            "body_part": series.body_part,
            "study_description": series.study_description,
            "series_description": series.series_description,
            "calling_ae": self._peer.ae_title,
        }
        untold: dict[str, Any] = {} if strict else {name: () for name, value in attributes.items() if not value}
        misfits = {one.name: one.match.model_copy(update=untold).misfit(attributes) for one in protocols}
        if any(misfit is None for misfit in misfits.values()):
            return []
        return [f"{name} does not take {misfit}" for name, misfit in misfits.items()] or ["none is configured"]

    def _remember(self, event: str, **fields: Any) -> None:
        with self._database.transaction() as tx:
            trail.record(tx, event, at=now_utc(), actor=self._actor, **fields)


class MissingSlices:
    """Fetches what a PACS has and an incomplete series lacks, where its protocol says so."""

    TRIES = 3
    """How often the same gap is asked for before the case is left to wait."""

    def __init__(self, settings: Settings, database: Database, spool: Spool, peer: str) -> None:
        self._settings, self._database, self._spool, self._name = settings, database, spool, peer
        self._peer = _queried_peer(settings, peer)
        self._tries: dict[tuple[int, int], int] = {}

    def work(self, now: datetime) -> int:
        """One round; returns how many slices came."""
        with self._database.reading() as tx:
            short = queries.cases_short(tx)
            lacking = {
                case.id: (case, queries.sop_instance_uids_here(tx, case.series_instance_uid))
                for case in short
                if self._is_ours(case.foreseen_protocol, case.source_ae)
            }
        came = 0
        for case, here in lacking.values():
            tries = self._tries.get((case.id, case.slices), 0)
            if tries < self.TRIES:
                self._tries[case.id, case.slices] = tries + 1
                came += self._fetch(case.id, Wanted(case.study_instance_uid, case.series_instance_uid), here, now)
        return came

    def _is_ours(self, protocol: str | None, source_ae: str) -> bool:
        rules = self._settings.completion_rules(protocol, source_ae)
        return rules.fetch_missing and rules.peer == self._name

    def _fetch(self, case_id: int, series: Wanted, here: set[str], now: datetime) -> int:
        uids = (series.study_instance_uid, series.series_instance_uid)
        came = 0
        event: str = "fetch_failed"
        fields: dict[str, Any] = {"peer": self._name, "sentence": "it has none of them any more"}
        try:
            missing = tuple(sorted(find_images(self._settings, self._peer, *uids) - here))
            if missing:
                came = retrieve(self._settings, self._spool, self._peer, Wanted(*uids, missing)).came
                event, fields = "missing_fetched", {"peer": self._name, "count": len(missing), "came": came}
        except NoAnswer as problem:
            event, fields = "fetch_failed", {"peer": self._name, "sentence": str(problem)}
        with self._database.transaction() as tx:
            trail.record(tx, event, at=now, actor="caretaker", case_id=case_id, **fields)
        return came


def _queried_peer(settings: Settings, name: str) -> Peer:
    peer = settings.peers.get(name)
    if peer is None:
        raise SettingsError(f"{name} is not in peers.toml; it has {', '.join(sorted(settings.peers)) or 'nobody'}")
    if not peer.query:
        raise SettingsError(f"{name} is not to be asked; give it `query = true` in peers.toml if it answers C-FIND")
    return peer
