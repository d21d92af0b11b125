"""What signs: where it comes from, what is refused, and that it is told to nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from quart import Quart

from headway import Headway
from headway.errors import BadInput, StoreUnavailable
from headway.http import Request
from headway.quart import Headway as QuartHeadway
from headway.secret import kept_secret
from headway.settings import Settings
from headway.tokens import COOKIE, new_visitor, sign_visitor
from tests.conftest import MakeHeadway
from tests.house import DOORS, SECRET, SITE, House, open_house, signed, user

WEAK: Final = [
    "tiny", "dev", "changeme", "ChangeMe-ChangeMe!", "secret-key-secret-key", "a" * 40, "ab" * 20,
    "passwordpassword", "super-secret-key-123", "django-insecure-abcdefgh", "your-secret-key-here",
    "0123456789abcdef", "development-key-1", b"dev", b"\x00" * 32,
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
async def test_without_a_secret_nobody_is_served(make_headway: MakeHeadway, door: str) -> None:
    """On a store of its own, an app without a secret does not start, and is told the cure."""
    with pytest.raises(Exception, match=r"no secret.*HEADWAY_SECRET.*token_urlsafe"):
        async with open_house(make_headway, door, secret=None):
            pass


@pytest.mark.parametrize("secret", WEAK, ids=str)
async def test_weak_secrets_are_refused(make_headway: MakeHeadway, secret: Any) -> None:
    """What anybody could guess signs nothing on a real store; the message does not repeat it."""
    good = "kLu2_4pBq0xTz8VvRw1s"
    for given, which in ((secret, "secret 1 of 1"), ([secret, good], "secret 1 of 2")):
        with pytest.raises(BadInput, match=which) as caught:
            async with open_house(make_headway, identify=user, secret=given):
                pass
        shown = secret if isinstance(secret, str) else repr(secret)[2:-1]
        assert shown not in str(caught.value)


async def test_serving_late_needs_a_secret_too(make_headway: MakeHeadway) -> None:
    """A surface that is mounted after the opening is held to the same."""
    async with make_headway(secret=None) as headway:
        with pytest.raises(BadInput, match="no secret"):
            _ = headway.asgi


async def test_an_app_without_users_is_warned(
    make_headway: MakeHeadway, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start it is said how visitors are told apart, if `identify` is not set."""
    async with open_house(make_headway, identify=user):
        pass
    assert "identify" not in caplog.text

    async with open_house(make_headway):
        pass
    assert "identify is not set" in caplog.text


def test_the_kept_secret_is_private(tmp_path: Path) -> None:
    """It is made once, long, for its user only; one that others could read is closed to them."""
    folder = tmp_path / "state"
    secret = kept_secret(folder)
    path = folder / "secret"

    assert len(secret) > 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in folder.iterdir()] == ["secret"]
    path.chmod(0o644)
    assert kept_secret(folder) == secret
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "x", "\n"])
def test_a_kept_secret_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """What a broken disk has left of it does not sign."""
    (tmp_path / "secret").write_text(text)

    with pytest.raises(BadInput, match="Remove the file"):
        kept_secret(tmp_path)


@pytest.mark.parametrize("kind", [str, str.encode])
async def test_the_secrets_of_quart_rotate(
    make_headway: MakeHeadway, kind: Callable[..., Any]
) -> None:
    """SECRET_KEY signs for our own purposes, and SECRET_KEY_FALLBACKS are still read."""
    old, new = "the key of this app in 2025", "the key of this app in 2026"
    visitor = new_visitor()

    async def seen(config: dict[str, Any], key: str, purpose: str = "") -> int:
        app = Quart(__name__)
        app.config.update(config)
        headway = QuartHeadway(app, url=url, prefix=prefix, drain_s=0.1)
        token = signed(visitor, purpose, key) if purpose else sign_visitor(visitor, [key])
        house = House(headway, app)
        async with app.test_app(), house.client(cookie=f"{COOKIE}={token}") as http:
            job = await house.running(visitor)
            return (await http.get(f"/jobs/{job.id}")).status_code

    settings = make_headway()._settings
    url, prefix = settings.url, settings.prefix
    both = {"SECRET_KEY": kind(new), "SECRET_KEY_FALLBACKS": [kind(old)]}
    assert await seen(both, old) == 200
    assert await seen(both, new) == 200
    assert await seen({"SECRET_KEY": kind(new)}, old) == 404
    assert await seen(both, new, "cookie-session") == 404


async def test_secrets_are_in_no_log_and_no_repr(
    make_headway: MakeHeadway, caplog: pytest.LogCaptureFixture
) -> None:
    """Secret, tokens, cookies and the store's password: not in a line of any log, nor in a repr."""
    caplog.set_level(logging.DEBUG)
    password = "hunter2-hunter2-hunter2"
    async with open_house(make_headway) as house:
        visitor = new_visitor()
        job = await house.running(visitor)
        cookie = sign_visitor(visitor, [SECRET])
        link = house.headway.share(job, cancel=True)
        token = link.partition("=")[2]
        async with house.client(cookie=f"{COOKIE}={cookie}") as http:
            await http.get(link.replace(SITE, ""))
            await http.get(f"/jobs/{job.id}", headers={"authorization": f"Bearer {token}"})
            await http.get(f"/jobs/{job.id}?share={token}x")
            await http.post(f"/jobs/{job.id}/cancel")
        headers = {"authorization": f"Bearer {token}", "cookie": cookie}
        request = Request("GET", "/", "/jobs", headers, cookies={COOKIE: cookie})
        settings = Settings(url=f"redis://:{password}@localhost", secret=[SECRET])
        shown = [repr(one) for one in (request, settings, house.headway, house.headway._access)]
    with pytest.raises(StoreUnavailable) as caught:
        async with Headway(f"redis://user:{password}@127.0.0.1:1", secret=SECRET):
            pass

    # Lines of the client that plays the browser are not ours.
    lines = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    said = "\n".join([*lines, *shown, str(caught.value), repr(caught.value)])
    assert [one for one in (SECRET, cookie, token, password) if one in said] == []
