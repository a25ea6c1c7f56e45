"""The boundary of a worker's bench: whatever happens to one case, the bench goes on to the next."""

import structlog

from appliance.casework.lease import LeaseLost, WorkerStopping, hand_back
from appliance.casework.part_lease import PartLost
from appliance.casework.sharing import help_with
from appliance.casework.steps import contour_case
from appliance.casework.workbench import Workbench
from appliance.errors import Refused

log = structlog.get_logger()


def attend(bench: Workbench, case_id: int) -> None:
    """Take a case through to its structure set; one that breaks on the way goes back."""
    try:
        contour_case(bench, case_id)
    except LeaseLost:
        log.warning("lease_lost", case=case_id)
    except WorkerStopping:
        _return(bench, case_id, "the worker was stopped", stopped=True)
    except Exception as error:
        log.exception("case_broke", case=case_id)
        _return(bench, case_id, _in_words(error), stopped=False)


def attend_part(bench: Workbench, case_id: int, model: str) -> None:
    """The same for a part of a case that another worker leads; that one goes on with what is left undone here."""
    try:
        help_with(bench, case_id, model)
    except PartLost:
        log.warning("part_lost", case=case_id, model=model)
    except WorkerStopping:
        log.info("part_left", case=case_id, model=model)
    except Exception:
        log.exception("part_broke", case=case_id, model=model)


def _return(bench: Workbench, case_id: int, sentence: str, *, stopped: bool) -> None:
    allowed = bench.settings.worker.attempts
    hand_back(bench.database, case_id, bench.worker, sentence, attempts_allowed=allowed, stopped=stopped)


def _in_words(error: Exception) -> str:
    """Enough to find the place in the log; never a header's text."""
    return (
        error.sentence if isinstance(error, Refused) else f"the worker failed with {type(error).__name__}; see its log"
    )
