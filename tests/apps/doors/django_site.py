"""The app for Django, around which `headway.wrap()` stands. Django knows no lifespan."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from headway import Headway
from tests.apps.doors import MakeHeadway, Site

_sites: list[Site] = []  # Django is configured once in a process; the newest site is the served one

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="the secret of a test",
    )  # fmt: skip


def make(make_headway: MakeHeadway, **options: Any) -> tuple[Site, Any]:
    site = Site(make_headway(Headway, **options))
    _sites[:] = [site]
    return site, site.headway.wrap(get_asgi_application())


def _response(answer: Any) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await _sites[0].page())


async def start(request: HttpRequest, task: str) -> HttpResponse:
    return _response(await _sites[0].start(task))


def start_in_thread(request: HttpRequest, task: str) -> HttpResponse:
    return _response(async_to_sync(_sites[0].start)(task))


async def mine(request: HttpRequest, job_id: str) -> HttpResponse:
    return HttpResponse(await _sites[0].mine(job_id))


async def streams(request: HttpRequest) -> HttpResponse:
    return JsonResponse(await _sites[0].streams())


async def broken(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await _sites[0].broken())


urlpatterns = [
    path("", page),
    path("start/<task>", start),
    path("thread/<task>", start_in_thread),
    path("mine/<job_id>", mine),
    path("streams", streams),
    path("broken", broken),
]
