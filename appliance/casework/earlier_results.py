"""A result that was made before, taken again byte for byte if its file still is what its row says."""

import hashlib

from appliance.records import Database, lasting_files
from appliance.spool import Spool


def earlier_result(database: Database, spool: Spool, name: str) -> bytes | None:
    """The file of an earlier result; None when there is none, or it is damaged and has to be made again.

    A file that no row names yet was written durably by somebody who was stopped before the row: it is taken as it is.
    """
    content = spool.result(name)
    if content is None:
        return None
    with database.reading() as tx:
        digests = lasting_files.digests_of_result(tx, name)
    return content if not digests or hashlib.sha256(content).hexdigest() in digests else None
