#!/opt/delineate/bin/python
"""Tells Docker whether one process of the appliance has what it needs: `healthcheck ROLE`.

The listener must answer C-ECHO; the others must reach their database at this release's schema, and those that ring or
answer the doorbell must reach the broker. Exits 0 when all is well, else 1 with one sentence.
"""

import sys
from pathlib import Path

from appliance.delivery.store_scu import Caller, echo
from appliance.errors import ApplianceError
from appliance.records import Database
from appliance.running.broker import ping
from appliance.settings import Settings, load_settings

TIME_LIMIT_S = 5.0


def check(role: str, settings: Settings) -> None:
    """Check what `role` needs.

    Raises:
        ApplianceError: something is missing; the message says what.
    """
    if role == "listen":
        echo(Caller.of(settings, TIME_LIMIT_S), settings.myself)
        return
    Database(settings.database_url).check()
    if role in {"assemble", "work"}:
        problem = ping(settings.broker_url)
        if problem is not None:
            raise ApplianceError(problem)


if __name__ == "__main__":
    try:
        check(sys.argv[1], load_settings(Path("configs")))
    except ApplianceError as problem:
        sys.exit(str(problem))
