"""What a box cannot account for: nothing, whatever was done to it, once it has come to rest."""

from datetime import timedelta
from typing import Protocol

from appliance.casework.stocktaking import take_stock
from appliance.clock import now_utc
from appliance.records import Database
from appliance.records.account import account
from appliance.spool import Spool


class Box(Protocol):
    """Whatever has rows and a spool: an `ApplianceBox`, a site of a unit test."""

    @property
    def database(self) -> Database: ...

    @property
    def spool(self) -> Spool: ...


def residue(box: Box, *, at_rest: bool = True) -> list[str]:
    """One sentence for everything that is lost, stranded or unknown.

    Args:
        box: where to look.
        at_rest: nothing is under way any more, so that a file without a row is an orphan however young it is.
    """
    with box.database.reading() as tx:
        sentences = list(account(tx).residue)
    young = timedelta(0) if at_rest else timedelta(hours=1)
    return [*sentences, *take_stock(box.database, box.spool, now_utc() + timedelta(seconds=1), young).in_words()]
