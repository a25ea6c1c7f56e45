"""The durable store: what was received, what was made, and the notes that processes leave for one another."""

from appliance.spool.entry import Buffer, Discarded, Entry
from appliance.spool.slots import SlotPool
from appliance.spool.spool import Arrival, Note, Spool

__all__ = ["Arrival", "Buffer", "Discarded", "Entry", "Note", "SlotPool", "Spool"]
