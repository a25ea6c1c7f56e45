"""Whether the spool has room: said once when it runs low, and once when it has recovered."""

from appliance.intake.storage import Means

_RECOVERED = 1.05
"""So much more than the reserve must be free again; else a spool at its limit would change its mind all the time."""


class Watermark:
    """Watches the free space of the spool."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._low = False

    def is_low(self) -> bool:
        """Whether images may not come in just now."""
        free_mb, reserve_mb = self._means.spool.free_mb(), self._means.settings.free_space_reserve_mb
        if not self._low and free_mb < reserve_mb:
            self._low = True
            self._means.reports.report("storage_low", free_mb=free_mb, reserve_mb=reserve_mb)
        elif self._low and free_mb >= reserve_mb * _RECOVERED:
            self._low = False
            self._means.reports.report("storage_recovered", free_mb=free_mb)
        return self._low
