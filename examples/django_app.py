"""Django: a button starts a job, and the page shows the bars of its visitor's jobs.

Run it: pip install 'headway[embedded]' django uvicorn; uvicorn django_app:app
"""

import time

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from headway import Headway, Progress

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])
headway = Headway()


@headway.task
def bake(progress: Progress, loaves: int) -> dict[str, int]:  # in a thread: it may use the ORM
    for loaf in progress.track(range(1, loaves + 1), unit="loaf"):
        progress.note(f"Loaf {loaf} is in the oven")
        time.sleep(0.1)
    return {"loaves": loaves}


async def index(request: HttpRequest) -> HttpResponse:
    jobs = await headway.list(owner=await headway.visitor(), limit=5)
    bars = "".join(headway.bar(job) for job in jobs)
    return HttpResponse(f'<form method="post" action="start"><button>Bake</button></form>{bars}')


@require_POST
async def start(request: HttpRequest) -> HttpResponse:
    job = await bake.using(key="oven").start(20)  # a second click finds the job that runs
    reply = await headway.reply(job, to="/")  # 202 for API clients; the form goes back to the page
    return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


urlpatterns = [path("", index), path("start", start)]
app = headway.wrap(get_asgi_application())
