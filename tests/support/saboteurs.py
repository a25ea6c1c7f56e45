"""The known ways to break a promise, each a small change that a tired person could make."""

from tests.support.sabotage import Saboteur

SABOTEURS: tuple[Saboteur, ...] = (
    Saboteur(
        "what is written is not flushed",
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
        "an arrival leaves the queue before its row is committed",
        "never lose",
        (
            (
                "intake/arrivals.py",
                "        round_.account()\n    for arrival, _ in read:\n        spool.release(arrival)\n",
                "        round_.account()\n        for arrival, _ in read:\n            spool.release(arrival)\n",
            ),
        ),
        ("unit/intake/test_arrivals.py",),
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
                "    if not database_is_done:\n        dump(database, target)\n",
                (
                    '    _copy_spool(settings.data_dir / "spool", target / "data" / "spool")\n'
                    "    if not database_is_done:\n        dump(database, target)\n"
                ),
            ),
        ),
        ("unit/running/test_backup.py",),
    ),
    Saboteur(
        "a worker writes without its lease",
        "never twice",
        (("casework/lease.py", " or case.lease_owner != self.worker", ""),),
        ("unit/casework/test_lease.py",),
    ),
    Saboteur(
        "a case is taken whatever its state",
        "never twice",
        (("casework/lease.py", "if case is None or case.state is not CaseState.QUEUED:", "if case is None:"),),
        ("unit/casework/test_lease.py",),
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
        "attempts are not counted",
        "never stuck",
        (("casework/lease.py", "            case.attempts += 1\n", ""),),
        ("unit/casework/test_lease.py",),
    ),
    Saboteur(
        "accepted counts as kept",
        "never lose",
        (
            (
                "delivery/outbox.py",
                "all(delivery.state is DeliveryState.COMMITTED for delivery in committing)",
                "all(delivery.state is not DeliveryState.PENDING for delivery in committing)",
            ),
        ),
        ("unit/delivery/test_outbox.py",),
    ),
)

SAMPLE = ("SQLite does not wait for the disk", "a worker writes without its lease", "a result gets a random UID")
"""Those of the short form: quick, and of three rooms."""
