"""Whether the database keeps what it has committed: asked of the server itself, before the first row is written.

A server that answers "committed" before the row is on the disk loses, with the power, cases that everybody was told of.
"""

from sqlalchemy import Connection, text

_POSTGRESQL = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "local", "remote_write", "remote_apply"},
}
"""What is safe (PostgreSQL documentation, Write Ahead Log); of synchronous_commit all but `off` wait for the disk."""
_SQLITE = {"journal_mode": {"wal"}, "synchronous": {"2", "3"}}
"""FULL or EXTRA under WAL (SQLite documentation, PRAGMA synchronous)."""


def what_is_unsafe(connection: Connection) -> str | None:
    """What this database was told that may lose committed rows, and what to do; None when there is nothing."""
    if connection.dialect.name == "sqlite":
        found = {name: str(connection.scalar(text(f"PRAGMA {name}"))).lower() for name in _SQLITE}
        wrong = {name: value for name, value in found.items() if value not in _SQLITE[name]}
        advice = "keep data_dir on a local file system with shared memory, not on a network share"
    else:
        found = {name: str(connection.scalar(text(f"SHOW {name}"))).lower() for name in _POSTGRESQL}
        wrong = {name: value for name, value in found.items() if value not in _POSTGRESQL[name]}
        advice = "set it to on for the server, the database and this user, and reload the server"
    if not wrong:
        return None
    told = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    return f"{told}, so that committed rows can be lost with the power; {advice}"
