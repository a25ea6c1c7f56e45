"""A case that several models draw, shared among the workers that are there.

The worker that holds the case leads. It writes a row for each model, rings for the others, and takes part after part
itself while any waits; who hears the bell takes one. A part that fell silent is taken over by the lead, so one worker
alone does everything, and nobody waits for the dead. What is done lies in the spool under a name that the scan and
the model give it, so that the next lead finds it as well (docs/adr/0022-several-models-one-structure-set.md).
"""

import time
from collections.abc import Callable, Mapping

import structlog

from appliance.casework.asking import Headway, ask, progress_of_parts
from appliance.casework.contouring import Scan, load_scan
from appliance.casework.lease import Lease
from appliance.casework.part_file import PartDamaged, decode, encode, part_file
from appliance.casework.part_lease import PartLease, PartLost
from appliance.casework.part_rows import is_free, put_back
from appliance.casework.workbench import Workbench
from appliance.clock import now_utc
from appliance.errors import Refused
from appliance.records import queries
from appliance.records.tables import Part, PartState
from appliance.segmentation.opening import WarmModel
from appliance.segmentation.segment import Segmented
from appliance.spool import Spool

LOOK_EVERY_S = 0.1
"""How often the lead looks whether the parts in other hands are done."""

log = structlog.get_logger()


def lead(bench: Workbench, lease: Lease, models: Mapping[str, WarmModel], scan: Scan) -> dict[str, Segmented]:
    """Have every model asked, by this worker and whoever else is free; what each found, in the order of the models.

    Raises:
        SeriesRefused, ModelRefused: as `segment` says.
        LeaseLost, WorkerStopping: as `Lease.progress` says.
        PartDamaged: what another worker wrote cannot be read.
    """

    def show() -> None:
        lease.progress("segment", 0, 1, lambda tx: progress_of_parts(queries.parts_of(tx, lease.case_id)))

    files = {model: part_file(scan.digest, one.package.digest) for model, one in models.items()}
    waiting = _write_down(bench, lease.case_id, files)
    for model in waiting[1:]:
        bench.ring_part(lease.case_id, model)
    while unfinished := [part for part in _parts(bench, lease.case_id) if part.state is not PartState.DONE]:
        mine = next((part.model for part in unfinished if is_free(part, now_utc())), None)
        if mine is None or not _do(PartLease(bench, lease.case_id, mine), bench, models[mine], scan, show):
            show()
            bench.on_step("wait", 0, 0)  # however long: whoever has the part is overseen by its own worker
            time.sleep(LOOK_EVERY_S)
    return {model: decode(bench.spool.part(file)) for model, file in files.items()}


def help_with(bench: Workbench, case_id: int, model: str) -> None:
    """Take one part of a case that another worker leads; does nothing when it is not needed any more.

    What is refused here is left to the lead, which will say so.

    Raises:
        PartLost, WorkerStopping: the part is somebody else's, or must go back; it has gone back already.
    """
    part = PartLease(bench, case_id, model)
    if not part.take():
        return
    try:
        with bench.database.reading() as tx:
            case = queries.case_by_id(tx, case_id)
            protocol = None if case is None else bench.settings.protocols.get(case.protocol or "")
            instances = [] if case is None else queries.instances_of(tx, case)
            paths = [bench.spool.instance_path(instance.digest) for instance in instances]
        if protocol is None or model not in protocol.models:
            return
        warm = bench.model(model, lambda *_: part.progress({}))
        scan = load_scan(paths, lambda *_: part.progress({}), uneven_gaps=protocol.uneven_gaps)
        if part_file(scan.digest, warm.package.digest) == part.file:  # else the lead has another version of it
            _work(bench, part, warm, scan, lambda: None)
    except Refused as refused:
        log.warning("part_refused", case=case_id, model=model, reason=refused.reason)
    finally:
        part.let_go()


def tidy(bench: Workbench) -> None:
    """Remove the parts of all cases that nobody will work on any more, files before rows: rows know the files."""
    with bench.database.reading() as tx:
        idle = queries.idle_parts(tx)
    if not idle:
        return
    for part in idle:
        bench.spool.drop_part(part.file)
    with bench.database.transaction() as tx:
        queries.forget_parts(tx, idle)


def _do(part: PartLease, bench: Workbench, model: WarmModel, scan: Scan, show: Callable[[], None]) -> bool:
    """Take a part and do it; False when another worker has it, or took it over because this one was too slow."""
    if not part.take():
        return False
    try:
        _work(bench, part, model, scan, show)
    except PartLost:
        return False
    finally:
        part.let_go()
    return True


def _work(bench: Workbench, part: PartLease, model: WarmModel, scan: Scan, show: Callable[[], None]) -> None:
    headway = Headway(len(model.package.manifest.folds))

    def on_run() -> None:
        part.progress(headway.fields())
        show()

    asked = ask(model, scan, headway, on_run, part.planned)
    bench.spool.keep_part(part.file, encode(asked.found))
    part.finish(asked, headway.fields())


def _write_down(bench: Workbench, case_id: int, files: Mapping[str, str]) -> list[str]:
    """Make the rows say what has to be done; what an earlier lead or its help has done already counts."""
    with bench.database.transaction() as tx:
        known = {part.model: part for part in queries.parts_of(tx, case_id)}
        for model, file in files.items():
            part = known.pop(model, None) and queries.part_of(tx, case_id, model)
            if part is None:
                row = {"state": PartState.WAITING, "attempts": 0, "progress": {}, "file": file}
                tx.add(Part(case_id=case_id, model=model, **row))
            elif part.file != file or (part.state is PartState.DONE and not _is_readable(bench.spool, file)):
                part.file = file
                put_back(part)
        queries.forget_parts(tx, known.values())
    return [part.model for part in _parts(bench, case_id) if part.state is PartState.WAITING]


def _parts(bench: Workbench, case_id: int) -> list[Part]:
    with bench.database.reading() as tx:
        return list(queries.parts_of(tx, case_id))


def _is_readable(spool: Spool, file: str) -> bool:
    try:
        decode(spool.part(file))
    except PartDamaged:
        return False
    return True
