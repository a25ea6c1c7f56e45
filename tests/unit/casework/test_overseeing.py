"""A worker and its bench: what hangs, swells or dies costs one attempt, and the next case finds a bench again."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.casework.lease import Lease
from appliance.casework.overseeing import Overseer
from appliance.clock import now_utc
from appliance.records import Database, queries
from appliance.records.tables import AuditEvent, CaseState, Part, PartState
from tests.support import fake_bench
from tests.support.config_folder import make_settings
from tests.support.rows import new_case, read_case

WORKER = "worker-box-1"

Oversee = Callable[..., Overseer]


@pytest.fixture
def oversee(tmp_path: Path, database: Database) -> Iterator[Oversee]:
    """A worker whose bench behaves as it is told; `lease` is the number that the bench says it has."""
    made: list[Overseer] = []

    def _oversee(behaviour: str, lease: int = 1, **worker: Any) -> Overseer:
        settings = make_settings(tmp_path, {"worker": {"lease_s": 60.0, **worker}})
        command = [sys.executable, "-S", fake_bench.__file__, behaviour, str(lease)]
        made.append(Overseer(settings, database, WORKER, command))
        return made[-1]

    yield _oversee
    for overseer in made:
        overseer.stop()


@pytest.fixture
def taken(database: Database) -> int:
    """A case that the bench of our worker has taken."""
    case_id = new_case(database, CaseState.QUEUED, protocol="bones")
    assert Lease(database, case_id, WORKER, 60.0, lambda: False).take()
    return case_id


def _lost(database: Database) -> list[str]:
    with database.reading() as tx:
        return [event.fields["sentence"] for event in tx.query(AuditEvent).filter_by(event="work_lost")]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("die", "its process was killed, most likely because memory ran out; see the kernel's log"),
        ("crash", "its process was ended by SIGSEGV; see the worker's log"),
        ("exit", "its process ended with exit code 3; see the worker's log"),
    ],
)
def test_a_bench_that_dies_gives_the_case_back_at_once_with_the_attempt_counted(
    oversee: Oversee, database: Database, taken: int, behaviour: str, words: str
) -> None:
    overseer = oversee(behaviour)
    first = overseer.start().pid
    overseer.attend(taken)
    case = read_case(database, taken)
    assert (case.state, case.attempts, _lost(database)) == (CaseState.QUEUED, 1, [words])
    assert overseer.start().pid != first, "another bench stands ready"


def test_a_step_that_gets_no_further_is_ended_in_its_time(oversee: Oversee, database: Database, taken: int) -> None:
    oversee("hang", step_limits_s={"structures": 0.3}).attend(taken)
    assert read_case(database, taken).state is CaseState.QUEUED
    assert _lost(database) == ["the step structures got no further in 0.3 s and was ended"]


def test_a_long_step_that_gets_further_is_left_alone(oversee: Oversee, database: Database, taken: int) -> None:
    oversee("crawl", step_limits_s={"segment": 1.0, "engines": 30.0}).attend(taken)
    assert (read_case(database, taken).state, _lost(database)) == (CaseState.SEGMENTING, [])


def test_a_bench_that_takes_more_memory_than_it_may_is_ended(oversee: Oversee, database: Database, taken: int) -> None:
    oversee("swell", memory_mb=256).attend(taken)
    assert read_case(database, taken).state is CaseState.QUEUED
    (sentence,) = _lost(database)
    assert sentence.startswith("its process took ")
    assert sentence.endswith(" MB of memory, and 256 MB is the most it may have")


def test_the_lease_is_renewed_while_a_step_shows_nothing(oversee: Oversee, database: Database, taken: int) -> None:
    soon = now_utc() + timedelta(seconds=1)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, taken)
        assert case is not None
        case.lease_until = soon
        mine = {"lease_owner": WORKER, "lease_until": soon, "state": PartState.WORKING}
        tx.add(Part(case_id=taken, model="dense", attempts=1, progress={}, file="a", **mine))
    oversee("crawl", lease_s=1.5).attend(taken)
    with database.reading() as tx:
        (part,) = queries.parts_of(tx, taken)
    until = read_case(database, taken).lease_until
    assert until is not None
    assert part.lease_until is not None
    assert min(until, part.lease_until) > soon


def test_a_lease_that_another_has_is_not_renewed(oversee: Oversee, database: Database, taken: int) -> None:
    soon = now_utc() + timedelta(seconds=1)
    with database.transaction() as tx:
        case = queries.case_by_id(tx, taken)
        assert case is not None
        case.lease_until, case.leases = soon, 2
    oversee("crawl", lease=1, lease_s=1.5).attend(taken)
    assert read_case(database, taken).lease_until == soon


def test_a_bench_that_dies_before_it_takes_the_case_counts_as_well_and_the_case_is_parked_in_the_end(
    oversee: Oversee, database: Database
) -> None:
    case_id = new_case(database, CaseState.QUEUED, protocol="bones")
    overseer = oversee("die", lease=0)
    for _ in range(4):
        overseer.attend(case_id)
    case = read_case(database, case_id)
    assert (case.state, case.attempts, case.reason) == (CaseState.FAILED, 3, "worker_lost")
    with database.reading() as tx:
        assert tx.query(AuditEvent).filter_by(event="alarm_raised").count() == 1


def test_what_the_bench_does_well_is_left_as_it_is(oversee: Oversee, database: Database, taken: int) -> None:
    overseer = oversee("done")
    first = overseer.start().pid
    overseer.attend(taken)
    overseer.attend(taken)
    assert (read_case(database, taken).attempts, overseer.start().pid) == (1, first)


def test_a_bench_rings_for_help_through_its_worker(oversee: Oversee, taken: int) -> None:
    overseer, rung = oversee("ring"), []
    overseer.ring_part = lambda case_id, model: rung.append((case_id, model)) is None
    overseer.attend(taken)
    assert rung == [(taken, "dense")]


def test_a_part_of_a_dead_bench_waits_for_others(oversee: Oversee, database: Database, taken: int) -> None:
    with database.transaction() as tx:
        mine = {"lease_owner": WORKER, "lease_until": now_utc(), "state": PartState.WORKING}
        tx.add(Part(case_id=taken, model="dense", attempts=1, progress={"done": 1}, file="a", **mine))
    oversee("die", lease=0).attend_part(taken, "dense")
    with database.reading() as tx:
        (part,) = queries.parts_of(tx, taken)
    assert (part.state, part.lease_owner, part.progress) == (PartState.WAITING, None, {})
    assert read_case(database, taken).state is CaseState.SEGMENTING, "the case is its lead's"


def test_a_worker_that_is_stopped_lets_its_bench_give_the_case_back(
    oversee: Oversee, database: Database, taken: int
) -> None:
    overseer = oversee("obey")
    overseer.should_stop = lambda: True
    overseer.attend(taken)
    assert (read_case(database, taken).attempts, _lost(database)) == (1, []), "the bench has done it itself"


def test_a_worker_that_is_stopped_while_its_bench_does_not_listen_gives_the_case_back_itself(
    oversee: Oversee, database: Database, taken: int
) -> None:
    overseer = oversee("hang")
    overseer.should_stop = lambda: True
    overseer.attend(taken)
    case = read_case(database, taken)
    assert (case.state, case.attempts) == (CaseState.QUEUED, 0), "it is not held against the case"
    assert _lost(database) == ["the worker was stopped"]


def test_a_bench_leaves_with_its_worker(oversee: Oversee) -> None:
    overseer = oversee("done")
    bench = overseer.start()
    overseer.stop()
    assert bench.exit_code == 0


def test_a_worker_itself_loads_nothing_that_runs_networks() -> None:

    heavy = "{'torch', 'onnxruntime', 'openvino', 'scipy', 'pydicom'}"
    loads = "import appliance.casework.tasks, appliance.casework.overseeing"
    code = f"import sys; {loads}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
