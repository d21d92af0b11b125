"""Store URLs, and the map of a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from headway._address import Address, Kind, unsecret, url_of
from headway._slots import Slots
from headway.errors import BadInput


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("valkey+cluster://a,b:7001", "redis+cluster://a:6379,b:7001"),
        ("valkeys+cluster://u:p@a/", "rediss+cluster://u:p@a:6379"),
        ("redis+cluster://[::1]:7000", "redis+cluster://[::1]:7000"),
        ("redis+sentinel://a,b/work", "redis+sentinel://a:26379,b:26379/work"),
        ("rediss+sentinel://u:p@a:1/work/2", "rediss+sentinel://u:p@a:1/work/2"),
        (
            "redis+sentinel://a:1/work?sentinel_password=x&health_check_interval=2",
            "redis+sentinel://a:1/work?health_check_interval=2&sentinel_password=x",
        ),
    ],
)
def test_addresses_of_many_servers(url: str, becomes: str) -> None:
    """Ports may be left out; and what comes of a URL is a URL that means the same."""
    assert url_of(url) == becomes
    assert Address.of(becomes) == Address.of(url)


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://", "redis+cluster://a,,b", "redis+cluster://a/1", "redis+cluster://a:x",
     "redis+sentinel://a", "redis+sentinel://a/", "unix+cluster:///tmp/a", "redis+magic://a",
     "redis+sentinel://a/work/x", "redis+cluster://a:99999"],
)  # fmt: skip
def test_bad_address_of_many_servers_is_refused(url: str) -> None:
    """An address that cannot be served is refused, with examples."""
    with pytest.raises(BadInput, match=r"redis\+cluster://host.*redis\+sentinel://host"):
        url_of(url)


def test_address_is_understood() -> None:
    """Each server gets the login and the options; the sentinels get theirs."""
    address = Address.of("redis+sentinel://u:p@a:1,b:2/work/3?sentinel_password=s&socket_timeout=2")

    assert (address.kind, address.service, address.hosts) == (Kind.SENTINEL, "work", ("a:1", "b:2"))
    assert address.node("c:9") == "redis://u:p@c:9/3?socket_timeout=2"
    assert address.options("c:9")["db"] == 3
    assert dict(address.sentinel) == {"password": "s"}


def test_passwords_are_not_shown() -> None:
    """Neither that of the servers nor that of the sentinels."""
    shown = unsecret("redis+sentinel://me:s3cret@a:1,b:2/work?sentinel_password=s3cret")

    assert shown == "redis+sentinel://me:***@a:1,b:2/work?sentinel_password=***"


RANGES = [
    [5461, 10922, ["", 7001, "id"], ["b", 8001, "id"]],
    [0, 5460, ["a", 7000, "id"]],
    [10923, 16000, ["c", 7002, "id"]],
]


@given(st.text(max_size=40))
def test_every_key_has_the_place_of_its_slot(key: str) -> None:
    """The place is the primary of the range; none where nobody serves the slot."""
    slots = Slots(RANGES, "asked:7001")

    place = slots.place_of(key)

    slot = key_slot(key.encode())
    expected = {
        range(5461): "a:7000",
        range(5461, 10923): "asked:7001",
        range(10923, 16001): "c:7002",
    }
    assert place == next((where for held, where in expected.items() if slot in held), None)


def test_maps_are_compared_by_what_they_say() -> None:
    """The same ranges in another order are the same map; one who serves more is another."""
    same = Slots([*reversed(RANGES)], "asked:7001")
    other = Slots([[0, 16383, ["a", 7000, "id"]]], "a:7000")

    assert Slots(RANGES, "asked:7001") == same
    assert same != other
    assert other.places == {"a:7000"}
