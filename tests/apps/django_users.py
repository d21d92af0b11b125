"""A Django app with users who log in: their jobs are theirs on every device."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="the secret of a test",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["USERS"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib.auth import aget_user, alogin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.handlers.asgi import ASGIRequest  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from headway import Headway, Progress  # noqa: E402

call_command("migrate", verbosity=0)


async def who(scope: Any) -> str | None:
    request = ASGIRequest(scope, None)
    session = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = session(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = await aget_user(request)
    return str(user.pk) if user.is_authenticated else None


headway = Headway(identify=who)


@headway.task
async def greet(progress: Progress, name: str) -> str:
    progress.set(done=1, total=1)
    return f"Hello {name}"


async def login(request: HttpRequest, name: str) -> HttpResponse:
    user, _ = await User.objects.aget_or_create(username=name)
    await alogin(request, user)
    return HttpResponse("in")


async def start(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    reply = await headway.reply(await greet.start(user.username))
    return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


urlpatterns = [path("login/<name>", login), path("start", start)]
app = headway.wrap(get_asgi_application())
