"""What somebody with all rights on the database can do to the trail: the triggers are gone, and any row is written."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.audit.verifying import Fault

Attack = Callable[[sqlite3.Connection, int, random.Random], None]


def open_as_attacker(path: Path) -> sqlite3.Connection:
    """The database without its triggers."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    return connection


def flip_a_bit(connection: sqlite3.Connection, seq: int, dice: random.Random) -> None:
    """One bit of one column of one event becomes another."""
    column = dice.choice(["at", "case_id", "event", "actor", "fields", "previous", "hash"])
    (old,) = connection.execute(f"SELECT {column} FROM audit_events WHERE id = ?", [seq]).fetchone()  # noqa: S608
    new: Any = (old or 0) ^ (1 << dice.randrange(8)) if column == "case_id" else _flipped(str(old), dice)
    connection.execute(f"UPDATE audit_events SET {column} = ? WHERE id = ?", [new, seq])  # noqa: S608


def remove(connection: sqlite3.Connection, seq: int, dice: random.Random) -> None:
    """One event is gone; now and then those after it are given other numbers."""
    connection.execute("DELETE FROM audit_events WHERE id = ?", [seq])
    if dice.random() < 0.5:
        connection.execute("UPDATE audit_events SET id = -id WHERE id > ?", [seq])
        connection.execute("UPDATE audit_events SET id = -id - 1 WHERE id < 0")
        connection.execute("UPDATE audit_head SET seq = seq - 1")


def insert(connection: sqlite3.Connection, seq: int, dice: random.Random) -> None:
    """An event stands where another stood, and all from there on are moved by one."""
    connection.execute("UPDATE audit_events SET id = -id WHERE id >= ?", [seq])
    connection.execute("UPDATE audit_events SET id = -id + 1 WHERE id < 0")
    (_, *copied) = connection.execute("SELECT * FROM audit_events WHERE id = ?", [dice.randrange(1, seq)]).fetchone()
    if dice.random() < 0.5:
        copied[3] = "somebody else"
    connection.execute("INSERT INTO audit_events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [seq, *copied])
    connection.execute("UPDATE audit_head SET seq = seq + 1")


def reorder(connection: sqlite3.Connection, seq: int, _dice: random.Random) -> None:
    """Two neighbours change places."""
    connection.execute("UPDATE audit_events SET id = -1 WHERE id = ?", [seq])
    connection.execute("UPDATE audit_events SET id = ? WHERE id = ?", [seq, seq + 1])
    connection.execute("UPDATE audit_events SET id = ? WHERE id = -1", [seq + 1])


ATTACKS: dict[Fault, Attack] = {
    Fault.CHANGED: flip_a_bit,
    Fault.MISSING: remove,
    Fault.INSERTED: insert,
    Fault.REORDERED: reorder,
}


def _flipped(text: str, dice: random.Random) -> str:
    place = dice.randrange(len(text))
    return text[:place] + chr(ord(text[place]) ^ (1 << dice.randrange(5))) + text[place + 1 :]
