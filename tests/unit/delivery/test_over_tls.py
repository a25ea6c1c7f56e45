"""What we call over TLS: results and requests for commitment go only to whoever shows the certificate of peers.toml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from appliance.delivery.commitment import request_commitment
from appliance.delivery.store_scu import Caller, NotDelivered, echo, send_files
from appliance.settings import Peer
from tests.support.certificates import DAY, Authority
from tests.support.fake_pacs import Commitment, FakePacs


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def us(authority: Authority) -> Caller:
    return Caller("DELINEATE", 5.0, authority.issue("us.example").files)


@pytest.fixture
def pacs(authority: Authority) -> Iterator[FakePacs]:
    with FakePacs(tls=authority.issue("pacs.example"), commitment=Commitment.AT_ONCE) as pacs:
        yield pacs


def _peer(pacs: FakePacs, **changes: Any) -> Peer:
    return Peer.model_validate(pacs.peer(**{"tls": True, "certificate": None, **changes}))


def _structure_set(folder: Path, uid: str = "1.2.3.4") -> Path:
    """An object of the right class; what else is in it does not matter to who sends it."""
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = RTStructureSetStorage, uid
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(folder / f"{uid}.dcm", data_set, enforce_file_format=True)
    return folder / f"{uid}.dcm"


def test_objects_and_requests_for_commitment_go_over_tls(us: Caller, pacs: FakePacs, tmp_path: Path) -> None:
    peer = _peer(pacs, certificate="pacs.example")
    assert send_files(us, peer, [_structure_set(tmp_path)]) == "0x0000"
    assert list(pacs.stored) == ["1.2.3.4"]
    request_commitment(us, peer, (RTStructureSetStorage, "1.2.3.4"), "1.2.3", lambda _report: None)
    assert pacs.asked[0].sop_instance_uids == ("1.2.3.4",)


@pytest.mark.parametrize(
    ("shown", "expected", "words"),
    [
        ("pacs.example", "other.example", "its certificate is not accepted (it is not the one that peers.toml names)"),
        ("pacs.example", "ab" * 32, "its certificate is not accepted (it is not the one that peers.toml names)"),
        ("expired", None, "its certificate is not accepted (certificate has expired)"),
        ("self-signed", None, "its certificate is not accepted (self-signed certificate)"),
        ("plain", None, "what it speaks is not TLS"),
    ],
)
def test_nothing_is_sent_to_a_peer_that_is_not_who_it_should_be(
    authority: Authority, us: Caller, tmp_path: Path, shown: str, expected: str | None, words: str
) -> None:
    holders = {
        "pacs.example": lambda: authority.issue("pacs.example"),
        "expired": lambda: authority.issue("old.example", starts=-2 * DAY, ends=-DAY),
        "self-signed": lambda: authority.self_signed("self.example"),
    }
    pacs = FakePacs() if shown == "plain" else FakePacs(tls=holders[shown]())
    with pacs, pytest.raises(NotDelivered) as refused:
        send_files(us, _peer(pacs, certificate=expected), [_structure_set(tmp_path)])
    assert f"no TLS with 127.0.0.1:{pacs.port}: {words}" in str(refused.value)
    assert (pacs.received, pacs.associations) == ([], 0)


def test_a_certificate_that_was_renewed_is_used_at_the_next_call(
    us: Caller, pacs: FakePacs, authority: Authority
) -> None:
    authority.issue("us.example", starts=-2 * DAY, ends=-DAY)
    with pytest.raises(NotDelivered, match="check also that it takes our certificate"):
        echo(us, _peer(pacs))
    authority.issue("us.example")
    echo(us, _peer(pacs))


def test_files_that_are_gone_keep_results_waiting_and_say_so(us: Caller, pacs: FakePacs, authority: Authority) -> None:
    authority.file.unlink()
    with pytest.raises(NotDelivered, match=r"authority\.pem does not exist; correct \[tls\]"):
        echo(us, _peer(pacs))
    with pytest.raises(NotDelivered, match="this caller has no certificate"):
        echo(Caller("DELINEATE", 5.0), _peer(pacs))
