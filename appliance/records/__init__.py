"""The database: rows are the truth. The only room, with audit, that knows SQLAlchemy."""

from appliance.records.session import Database, Transaction

__all__ = ["Database", "Transaction"]
