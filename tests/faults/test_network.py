"""A network that is slow, lossy or gone: the series is whole in the end, and no place is held beyond the deadline."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from appliance.delivery.store_scu import Caller, NotDelivered, send_files
from appliance.dicom.identity import read_identity
from tests.support.arriving import data_set_bytes
from tests.support.ct_files import make_ct_series
from tests.support.dcmtk import STORESCU, WHY_NOT
from tests.support.listening import ListenerProcess
from tests.support.proof import Tally
from tests.support.resending import send_until_taken
from tests.support.slow_link import Relay, link, why_no_link
from tests.support.waiting import wait_until

Times = Callable[[int, int], int]
LIMIT_S = 2.0
SLICES = 8


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[ListenerProcess, psutil.Process]]:
    intake = {"host": "0.0.0.0", "network_timeout_s": LIMIT_S, "free_space_reserve_mb": 0}
    listener = ListenerProcess.configured(tmp_path / "site", {"intake": intake})
    with listener.running() as started:
        yield listener, psutil.Process(started.pid)
        assert started.poll() is None, "the listener ended"


def _places_held(process: psutil.Process) -> int:
    """Processes that serve an association: all children but the housekeeper."""
    return max(len(process.children()) - 1, 0)


def _is_whole(listener: ListenerProcess, paths: list[Path]) -> bool:
    """Whether every slice lies in the spool as it was sent."""
    sent = {read_identity(path).sop_instance_uid: data_set_bytes(path) for path in paths}
    kept = {read_identity(each.path).sop_instance_uid: data_set_bytes(each.path) for each in listener.spool.arrivals()}
    return all(kept.get(uid) == data_set for uid, data_set in sent.items())


@pytest.mark.fault("F14", "never lose")
def test_a_connection_cut_in_the_middle_frees_its_place_and_the_series_is_whole_after_it_is_sent_again(
    listener: tuple[ListenerProcess, psutil.Process], tally: Tally, times: Times, tmp_path: Path
) -> None:
    running, process = listener
    sender = Caller("FAKEPACS", 5.0)
    for number in range(times(2, 40)):
        paths = make_ct_series(tmp_path / f"ct{number}", series=f"cut{number}", slices=SLICES)
        size = sum(path.stat().st_size for path in paths)
        with Relay(running.me.port, delay_s=0.001, bytes_per_s=4e6) as relay:
            peer = running.me.model_copy(update={"port": relay.port})
            relay.cut_after(int(size * 0.4))
            with suppress(NotDelivered):
                send_files(sender, peer, paths)
            wait_until(lambda: _places_held(process) == 0, 30 + LIMIT_S, "the place to be free")
            relay.mend()
            send_until_taken(sender, peer, paths)
        whole = wait_until(lambda paths=paths: _is_whole(running, paths), 20, "every slice")
        tally.count(held=whole)


@pytest.mark.fault("F14", "never stuck")
@pytest.mark.skipif(why_no_link() is not None, reason=f"NOT run: {why_no_link()}")
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_over_a_slow_and_lossy_link_that_goes_down_every_series_is_whole_in_the_end(
    listener: tuple[ListenerProcess, psutil.Process], tally: Tally, times: Times, tmp_path: Path
) -> None:
    running, process = listener
    most_sent = 0
    with link(times(20, 200), 5) as slow:
        tally.figures["link"] = slow.words
        for number in range(times(2, 100)):
            paths = make_ct_series(tmp_path / f"ct{number}", series=f"slow{number}", slices=SLICES)
            store = [str(STORESCU), "-to", "5", "-ta", "5", "-td", "20", "-aet", "FAKEPACS", "-aec", "DELINEATE"]
            store += [slow.here, str(running.me.port), *map(str, paths)]
            cut = slow.start(store)
            wait_until(lambda: _places_held(process) > 0, 20, "the association")
            slow.set("down")
            wait_until(lambda: _places_held(process) == 0, 30 + LIMIT_S, "the place to be free")
            slow.set("up")
            cut.kill()
            cut.wait()
            for again in range(1, 20):
                most_sent = max(most_sent, again)
                if slow.run(store).returncode == 0:
                    break
            tally.count(held=wait_until(lambda paths=paths: _is_whole(running, paths), 20, "every slice"))
    tally.figures["sent again at most"] = f"{most_sent} times"
