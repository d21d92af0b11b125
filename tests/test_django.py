"""What is special to Django: its users. Their requests are seen before its middleware runs."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.apps.process import Apps


def test_the_users_of_the_app_own_their_jobs(tmp_path: Path) -> None:
    """Who logs in elsewhere sees the same jobs, and another user sees none of them."""
    with Apps(tmp_path) as apps:
        app = apps.serve(app="django_users:app", USERS=str(tmp_path / "users.sqlite3"))
        with (
            httpx.Client(base_url=app.http.base_url) as laptop,
            httpx.Client(base_url=app.http.base_url) as phone,
            httpx.Client(base_url=app.http.base_url) as other,
        ):
            for browser, name in ((laptop, "ann"), (phone, "ann"), (other, "bob")):
                browser.get(f"/login/{name}").raise_for_status()

            place = laptop.post("/start").headers["location"]

            assert "event: end" in phone.get(f"{place}/events").text
            assert phone.get(f"{place}/result").json() == "Hello ann"
            assert other.get(place).status_code == 404
            assert app.http.get(place).status_code == 404
