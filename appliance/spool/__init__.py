"""The durable store: what was received, what was made, and the notes that processes leave for one another."""

from appliance.spool.spool import Arrival, Note, Spool

__all__ = ["Arrival", "Note", "Spool"]
