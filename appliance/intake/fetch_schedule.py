"""A protocol that fetches by itself: rounds every so often or at given times, each bounded."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, time, timedelta

from appliance.clock import monotonic_s
from appliance.errors import SettingsError
from appliance.intake.calling import NoAnswer
from appliance.intake.fetching import Choice, Fetcher, Question, Verdict
from appliance.records import Database
from appliance.settings import Protocol, Settings
from appliance.spool import Spool

TRIES = 3
"""How often one series is fetched in vain until the process starts again."""


class ScheduledFetch:
    """The rounds of one protocol.

    Args:
        settings: of this box.
        database: what is here already.
        spool: where C-GET puts what comes.
        protocol: one with `[fetch]`.
        steady: seconds that never step back, for `every_min`.

    Raises:
        SettingsError: the protocol has none, or its peer is not to be asked.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        spool: Spool,
        protocol: Protocol,
        steady: Callable[[], float] = monotonic_s,
    ) -> None:
        if protocol.fetch is None:
            raise SettingsError(f"the protocol {protocol.name} has no [fetch]")
        self._fetch, self._protocol, self._steady = protocol.fetch, protocol, steady
        self._fetcher = Fetcher(settings, database, spool, self._fetch.peer, "caretaker")
        self._last_round_s: float | None = None
        self._looked_at: datetime | None = None
        self._tries: Counter[str] = Counter()

    def work(self, now: datetime) -> int:
        """Make a round if it is time; returns how many series were fetched."""
        local = now.astimezone()
        if not self._is_due(local):
            return 0
        fetched = 0
        try:
            for choice in self._wanted(local):
                self._tries[choice.series.series_instance_uid] += 1
                self._fetcher.fetch(choice)
                fetched += 1
        except NoAnswer:
            pass  # the fetcher has left it in the trail; the next round tries again
        return fetched

    def _wanted(self, local: datetime) -> list[Choice]:
        first = local.date() - timedelta(days=self._fetch.days - 1)
        keys = {"StudyDate": f"{first:%Y%m%d}-{local:%Y%m%d}", "ModalitiesInStudy": "CT"}
        plan = self._fetcher.plan(Question(keys, protocols=(self._protocol,), strict=True))
        wanted = [
            choice
            for choice in plan
            if choice.verdict is Verdict.FETCH and self._tries[choice.series.series_instance_uid] < TRIES
        ]
        return wanted[: self._fetch.max_series]

    def _is_due(self, local: datetime) -> bool:
        before, self._looked_at = self._looked_at, local
        if self._fetch.every_min is None:
            return before is not None and any(before < at <= local for at in self._moments(local))
        if not self._fetch.is_open(local):
            return False
        is_due = self._last_round_s is None or self._steady() - self._last_round_s >= self._fetch.every_min * 60.0
        if is_due:
            self._last_round_s = self._steady()
        return is_due

    def _moments(self, local: datetime) -> list[datetime]:
        """The times of today and yesterday at which a round begins."""
        today = [
            local.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
            for at in map(time.fromisoformat, self._fetch.at)
        ]
        return [*today, *(moment - timedelta(days=1) for moment in today)]
