"""The known ways to break a promise, each a small change that a tired person could make."""

from tests.support.sabotage import Saboteur

_KEEP = """            try:
                entry.keep()
            except OSError as error:
                status, sentence = OUT_OF_RESOURCES, _disk_refused(error)
"""
_RELEASE = """    failpoint("arrival_committed")
    for arrival, _ in read:
        spool.release(arrival)
"""
_DUMP = """    if not database_is_done:
        dump(database, target)
"""
_RECEIVE = (
    "faults/test_receive.py::"
    "test_every_success_leaves_after_one_flush_of_its_slot_and_nothing_touches_the_slot_after_that"
)
_SLOW = "faults/test_hostile_peers.py::test_a_healthy_peer_is_served_while_others_hold_connections"

SABOTEURS: tuple[Saboteur, ...] = (
    Saboteur(
        "the flush of a received object is dropped",
        "never lose",
        (("spool/entry.py", "        os.fdatasync(self._slot)\n", ""),),
        (_RECEIVE,),
    ),
    Saboteur(
        "success is answered before the object is durable",
        "never lose",
        (
            ("intake/storage.py", _KEEP, "            threading.Timer(0.1, entry.keep).start()\n"),
            ("intake/storage.py", "from io import BytesIO\n", "import threading\nfrom io import BytesIO\n"),
        ),
        (_RECEIVE,),
    ),
    Saboteur(
        "a torn slot is taken for a whole object",
        "never wrong",
        (("spool/frame.py", "return frame if left == 0 and found.digest() == frame.digest else None", "return frame"),),
        ("unit/spool/test_slots.py",),
    ),
    Saboteur(
        "results and notes are not flushed",
        "never lose",
        (("spool/durable.py", "            os.fsync(file.fileno())\n", ""),),
        ("unit/spool/test_durable.py",),
    ),
    Saboteur(
        "a name is given before the bytes are there",
        "never lose",
        (
            ("spool/durable.py", "        temporary.rename(final)\n", ""),
            (
                "spool/durable.py",
                "            for chunk in chunks:\n",
                "            temporary.rename(final)\n            for chunk in chunks:\n",
            ),
        ),
        ("unit/spool/test_durable.py",),
    ),
    Saboteur(
        "the peer's UID becomes the name of a file",
        "never wrong",
        (
            (
                "intake/arrivals.py",
                "spool.instance_path(arrival.digest) if usable",
                "spool.instance_path(identity.sop_instance_uid) if usable",
            ),
        ),
        ("unit/intake/test_arrivals.py",),
    ),
    Saboteur(
        "an invalid UID is acknowledged",
        "never wrong",
        (("intake/storage.py", "if not is_valid_uid(command.uid(cs.AFFECTED_INSTANCE)):", "if False:"),),
        ("unit/intake/test_listener.py",),
    ),
    Saboteur(
        "a peer may take as long as it likes for its request",
        "never stuck",
        (("intake/acceptor.py", "if waiting.deadline_s <= now_s]", "if waiting.deadline_s <= 0]"),),
        (f"{_SLOW}[half a PDU-1]",),
    ),
    Saboteur(
        "an object may come as slowly as it likes",
        "never stuck",
        (("intake/wire.py", "            if monotonic_s() > deadline_s:\n", "            if False:\n"),),
        (f"{_SLOW}[one byte of an object a second-1]",),
    ),
    Saboteur(
        "an arrival leaves the queue before its row is committed",
        "never lose",
        (
            ("intake/arrivals.py", _RELEASE, ""),
            (
                "intake/arrivals.py",
                "        spool.settle(arrival, path)\n",
                "        spool.settle(arrival, path)\n        spool.release(arrival)\n",
            ),
        ),
        ("unit/intake/test_arrivals.py",),
    ),
    Saboteur(
        "SQLite does not wait for the disk",
        "never lose",
        (
            ("records/session.py", '"synchronous=FULL"', '"synchronous=NORMAL"'),
            ("records/durability.py", '{"2", "3"}', '{"1", "2", "3"}'),
        ),
        ("unit/records/test_database.py",),
    ),
    Saboteur(
        "nobody asks whether the database keeps what it commits",
        "never lose",
        (("records/session.py", "        if unsafe is not None:\n", "        if False:\n"),),
        ("faults/test_unsafe_database.py::test_an_embedded_database_that_may_lose_commits_is_refused",),
    ),
    Saboteur(
        "what came after the rows were copied stays out of the queue of a restored box",
        "never lose",
        (("running/backup.py", "        spool.queue_again(one.path, one.written_ns)\n", "        pass\n"),),
        ("unit/running/test_backup.py",),
    ),
    Saboteur(
        "files are copied before the rows that name them",
        "never lose",
        (
            (
                "running/backup.py",
                _DUMP,
                f'    _copy_spool(settings.data_dir / "spool", target / "data" / "spool")\n{_DUMP}',
            ),
        ),
        ("unit/running/test_backup.py",),
    ),
    Saboteur(
        "a worker writes without its lease",
        "never twice",
        (
            (
                "casework/lease.py",
                "            if case is None or not self.is_on(case):",
                "            if case is None:",
            ),
        ),
        ("unit/casework/test_lease.py",),
    ),
    Saboteur(
        "a case is taken whatever its state",
        "never twice",
        (("casework/lease.py", "if case is None or case.state is not CaseState.QUEUED:", "if case is None:"),),
        ("unit/casework/test_lease.py",),
    ),
    Saboteur(
        "attempts are not counted",
        "never stuck",
        (("casework/lease.py", "            case.attempts += 1\n", ""),),
        ("unit/casework/test_lease.py",),
    ),
    Saboteur(
        "a worker that is told to stop keeps its case",
        "never stuck",
        (
            (
                "casework/lease.py",
                "case.state is CaseState.SEGMENTING and case.lease_owner == worker:",
                "case.state is CaseState.SEGMENTING and case.lease_owner == worker and not stopped:",
            ),
        ),
        ("unit/casework/test_tasks.py",),
    ),
    Saboteur(
        "a result gets a random UID",
        "never twice",
        (
            ("dicom/uid.py", "    digest = hashlib.sha256()\n", "    digest = hashlib.sha256(os.urandom(8))\n"),
            ("dicom/uid.py", "import hashlib\n", "import hashlib\nimport os\n"),
        ),
        ("unit/dicom/test_uid.py",),
    ),
    Saboteur(
        "gaps between slices are not looked at",
        "never wrong",
        (("dicom/ct_series.py", "    _check_gaps(geometry, uneven_gaps=uneven_gaps)\n", ""),),
        ("unit/dicom/test_ct_series.py",),
    ),
    Saboteur(
        "patients are not compared",
        "never wrong",
        (("dicom/ct_series.py", "lambda one: one.patient_key", 'lambda one: ""'),),
        ("unit/dicom/test_ct_series.py",),
    ),
    Saboteur(
        "the PACS's own count is not believed",
        "never wrong",
        (("intake/completion.py", "    if sign is CountSign.SHORT:\n", "    if False:\n"),),
        ("unit/intake/test_counting.py",),
    ),
    Saboteur(
        "accepted counts as kept",
        "never lose",
        (
            (
                "delivery/settling.py",
                "all(delivery.state is DeliveryState.COMMITTED for delivery in provable)",
                "all(delivery.state is not DeliveryState.PENDING for delivery in provable)",
            ),
        ),
        ("unit/delivery/test_outbox.py",),
    ),
    Saboteur(
        "files are removed without proof of delivery",
        "never lose",
        (
            (
                "records/lasting_files.py",
                "and_(case.state == CaseState.COMMITTED, ~_unproved(case, proved_before))",
                "case.state.in_((CaseState.DELIVERED, CaseState.COMMITTED))",
            ),
        ),
        ("unit/casework/test_retention.py",),
    ),
    Saboteur(
        "the chain of the trail leaves an event out",
        "never silent",
        (
            (
                "records/chain.py",
                "    for waiting in tx.info.pop(_WAITING):\n",
                "    for waiting in tx.info.pop(_WAITING)[-1:]:\n",
            ),
        ),
        ("unit/audit/test_chain.py", "unit/audit/test_trail.py"),
    ),
    Saboteur(
        "an event is bound to nothing before it",
        "never silent",
        (("records/chain.py", '        previous = rows[-1]["hash"]\n', ""),),
        ("unit/audit/test_chain.py", "unit/audit/test_trail.py"),
    ),
)

SAMPLE = ("SQLite does not wait for the disk", "a worker writes without its lease", "a result gets a random UID")
"""Those of the short form: quick, and of three rooms."""
