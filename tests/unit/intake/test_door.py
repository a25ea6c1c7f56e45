"""The door: a title, a certificate and an address must belong together, and the right box must be called."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from appliance.intake.door import BY_USER, CALLED_AE_UNKNOWN, CALLING_AE_UNKNOWN, PERMANENT, Claim, Door
from appliance.settings.tls import ShownCertificate
from tests.support.certificates import Authority, Holder
from tests.support.config_folder import make_settings

TITLES = ("CT_SCANNER", "PACS_EAST", "PACS_WEST", "ct_scanner")
ADDRESSES = ("10.1.0.5", "10.1.0.6", "192.168.7.7", "2001:db8::5")
CERTIFICATES = tuple(ShownCertificate(str(number) * 64, frozenset({f"node{number}.example"})) for number in range(1, 5))
CALLED = ("DELINEATE", "delineate", "DELINEATE2", "CT_SCANNER")
CLAIMS = [
    Claim(title, called, address, certificate)
    for title, certificate, address, called in product(TITLES, CERTIFICATES, ADDRESSES, CALLED)
]
ANYWHERE = Claim("FAKEPACS", "DELINEATE", "203.0.113.9")


def _peer(number: int, **changes: Any) -> dict[str, Any]:
    """The peer with this title; every second one is known by its certificate's fingerprint, the others by name."""
    by = CERTIFICATES[number].sha256 if number % 2 else f"node{number + 1}.example"
    own = {"certificate": by, "tls": True, "addresses": [ADDRESSES[number]]}
    return {"ae_title": TITLES[number], "host": "h", "port": 104, **own, **changes}


@pytest.fixture
def us(tmp_path: Path) -> Holder:
    return Authority(tmp_path).issue("delineate.example")


def _door(folder: Path, us: Holder, peers: dict[str, Any], **intake: Any) -> Door:
    return Door(make_settings(folder, {"tls": us.table, "intake": intake}, peers=peers, protocols={}))


@pytest.mark.parametrize("listed", [1, 4])
def test_of_256_callers_only_those_are_let_in_who_are_themselves_in_every_respect(
    tmp_path: Path, us: Holder, listed: int
) -> None:
    door = _door(tmp_path, us, {f"peer{number}": _peer(number) for number in range(listed)})
    assert len(CLAIMS) == 256
    let_in = {claim for claim in CLAIMS if door.admit(claim) is None}
    expected = zip(TITLES, ADDRESSES, CERTIFICATES, strict=True)
    assert let_in == {Claim(title, "DELINEATE", *rest) for title, *rest in list(expected)[:listed]}


def test_everybody_else_is_told_the_same_and_the_trail_is_told_what_does_not_fit(tmp_path: Path, us: Holder) -> None:
    door = _door(tmp_path, us, {"scanner": _peer(0)})
    right = Claim(TITLES[0], "DELINEATE", ADDRESSES[0], CERTIFICATES[0])
    wrong = {
        Claim("STRANGER", "DELINEATE", ADDRESSES[0], CERTIFICATES[0]): "'STRANGER' is not in peers.toml",
        Claim(TITLES[0], "DELINEATE", ADDRESSES[1], CERTIFICATES[0]): "does not call from 10.1.0.6; add it",
        Claim(TITLES[0], "DELINEATE", ADDRESSES[0], CERTIFICATES[1]): "(2222222222222222…, node2.example)",
        Claim(TITLES[0], "DELINEATE", ADDRESSES[0]): "calls over TLS alone, and this caller did not",
    }
    assert door.admit(right) is None
    for claim, words in wrong.items():
        rejection = door.admit(claim)
        assert rejection is not None
        assert (rejection.result, rejection.source, rejection.reason) == (PERMANENT, BY_USER, CALLING_AE_UNKNOWN)
        assert words in rejection.sentence
    other_box = door.admit(Claim(TITLES[0], "OTHER", ADDRESSES[0], CERTIFICATES[0]))
    assert other_box is not None
    assert (other_box.reason, "it called 'OTHER'" in other_box.sentence) == (CALLED_AE_UNKNOWN, True)


@pytest.mark.parametrize(
    ("networks", "address", "inside"),
    [
        (["10.1.0.0/16"], "10.1.255.1", True),
        (["10.1.0.0/16"], "10.2.0.1", False),
        (["10.1.0.5"], "::ffff:10.1.0.5", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["2001:db8::/32", "10.1.0.0/16"], "2001:db9::1", False),
        (["0.0.0.0/0"], "no address", False),
    ],
)
def test_addresses_are_networks_of_either_kind(
    tmp_path: Path, us: Holder, networks: list[str], address: str, inside: bool
) -> None:
    door = _door(tmp_path, us, {"scanner": _peer(0, addresses=networks)})
    assert (door.admit(Claim(TITLES[0], "DELINEATE", address, CERTIFICATES[0])) is None) is inside


def test_two_entries_may_share_a_title_and_one_of_them_has_to_fit_as_a_whole(tmp_path: Path, us: Holder) -> None:
    door = _door(tmp_path, us, {"old": _peer(0), "new": _peer(1, ae_title=TITLES[0])})
    assert door.admit(Claim(TITLES[0], "DELINEATE", ADDRESSES[0], CERTIFICATES[0])) is None
    assert door.admit(Claim(TITLES[0], "DELINEATE", ADDRESSES[1], CERTIFICATES[1])) is None
    assert door.admit(Claim(TITLES[0], "DELINEATE", ADDRESSES[1], CERTIFICATES[0])) is not None


def test_where_strangers_may_come_a_listed_title_stays_bound(tmp_path: Path, us: Holder) -> None:
    door = _door(tmp_path, us, {"scanner": _peer(0)}, known_peers_only=False)
    assert door.admit(Claim("STRANGER", "DELINEATE", "203.0.113.9")) is None
    assert door.admit(Claim(TITLES[0], "DELINEATE", "203.0.113.9")) is not None


def test_a_peer_without_addresses_or_certificate_comes_in_by_its_title_alone(tmp_path: Path) -> None:
    door = Door(make_settings(tmp_path))
    assert door.admit(ANYWHERE) is None


def test_the_box_may_ask_itself_how_it_is_and_nobody_may_in_its_name(tmp_path: Path, us: Holder) -> None:
    door = _door(tmp_path, us, {"scanner": _peer(0)}, tls="both")
    own = ShownCertificate(us.fingerprint, frozenset())
    assert door.admit(Claim("DELINEATE", "DELINEATE", "127.0.0.1")) is None
    assert door.admit(Claim("DELINEATE", "DELINEATE", "10.0.0.1", own)) is None
    assert door.admit(Claim("DELINEATE", "DELINEATE", "10.0.0.1")) is not None
    assert door.admit(Claim("DELINEATE", "DELINEATE", "127.0.0.1", CERTIFICATES[0])) is not None
