"""What is done once a night, at an hour of the hospital's own clock, and made up for when the box was off then."""

from datetime import datetime, timedelta

from appliance.casework.retention import Retention
from appliance.delivery.reconciling import Reconciler
from appliance.records import Database, queries
from appliance.settings import Settings
from appliance.spool import Spool


def is_due(last: datetime | None, now: datetime, hour: int) -> bool:
    """Whether the last time was before the newest of the moments at which it is due: each day at `hour`, local time.

    A last time in the future comes from a clock that was wrong, and counts as none.
    """
    local = now.astimezone()
    moment = local.replace(hour=hour, minute=0, second=0, microsecond=0, tzinfo=None)
    if moment > local.replace(tzinfo=None):
        moment -= timedelta(days=1)
    return last is None or last > now or last < moment.astimezone()


def compare_with_pacs(settings: Settings, database: Database, spool: Spool, now: datetime) -> None:
    """Compare the PACS with the rows, if it is time."""
    with database.reading() as tx:
        last = queries.last_event(tx, "reconciled")
    if is_due(last, now, settings.delivery.reconcile_hour):
        Reconciler(settings, database, spool).run(now)


def remove_old_files(settings: Settings, database: Database, spool: Spool, now: datetime) -> None:
    """Remove files whose term is over, if it is time."""
    with database.reading() as tx:
        last = queries.last_event(tx, "retention_kept")
    if is_due(last, now, settings.retention.hour):
        Retention(settings, database, spool).run(now)
