"""What is special to FastAPI: its router, its dependencies, and what its documents tell."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Response

from headway import Headway as PlainHeadway
from headway import Job
from headway.fastapi import STARTED, Headway, JobBatch, JobDocument, JobProblem, problems
from headway.models import MODELS
from headway.openapi import openapi
from headway.surface import OPERATIONS
from tests.apps.life import LifespanFailed, lived, visiting
from tests.conftest import MakeHeadway

QUIET = {"openapi", "static"}
TOLD = [one for one in OPERATIONS if one.name not in QUIET]


def made(make_headway: MakeHeadway, **options: Any) -> Headway:
    headway: PlainHeadway = make_headway(Headway, **options)
    assert isinstance(headway, Headway)
    return headway


def starting(headway: Headway) -> Any:
    @headway.task
    async def nothing() -> None:
        pass

    async def start() -> Response:
        return await headway.reply(await nothing.start())

    return start


# ── documents ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("one", TOLD, ids=lambda one: one.name)
def test_an_operation_is_told_as_the_surface_tells_it(one: Any) -> None:
    """Each has its statuses, its parameters and its content types in the document of the app."""
    app = FastAPI()
    Headway(app)
    ours = openapi("/jobs")["paths"][f"/jobs{one.path}"][one.method.lower()]

    told = app.openapi()["paths"][f"/jobs{one.path}"][one.method.lower()]

    assert told["operationId"] == f"jobs_{one.name}"
    assert told["responses"].keys() == ours["responses"].keys()
    assert len(told.get("parameters", [])) == len(one.takes)
    for status, response in ours["responses"].items():
        assert list(told["responses"][status].get("content", [])) == list(
            response.get("content", [])
        )


def test_all_references_lead_somewhere() -> None:
    """The document stands alone: routes of the app that use ours included."""
    app = FastAPI()
    headway = Headway(app)
    start = starting(headway)
    app.post("/start", status_code=202, responses=STARTED)(start)
    app.get("/one", responses=problems("not_found", "expired"))(start)

    told = app.openapi()

    names = {name.rpartition("/")[2] for name in _references(told)}
    assert names <= told["components"]["schemas"].keys()
    assert {"JobDocument", "JobProblem", "JobBatch"} <= names
    started = told["paths"]["/start"]["post"]["responses"]["202"]["content"]["application/json"]
    assert started["schema"] == {"$ref": "#/components/schemas/JobDocument"}
    assert told["paths"]["/one"]["get"]["responses"].keys() == {"200", "404", "410"}


def _references(told: Any) -> list[str]:
    if isinstance(told, list):
        return [name for one in told for name in _references(one)]
    if not isinstance(told, dict):
        return []
    here = [told["$ref"]] if isinstance(told.get("$ref"), str) else []
    return here + [name for one in told.values() for name in _references(one)]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_shape_of_its_document(name: str) -> None:
    """Field by field it is what the surface's own document says."""
    ours = openapi("")["components"]["schemas"]
    model = MODELS[name].model_json_schema()  # type: ignore[attr-defined]
    shapes = {name: model, **{n: s for n, s in model.get("$defs", {}).items() if n != "State"}}

    for title, told in shapes.items():
        mine = title.removeprefix("Job")
        shape = ours.get(mine) or ours[f"{mine}Reading"]
        assert told["properties"].keys() == shape["properties"].keys()
        assert sorted(told.get("required", [])) == sorted(shape["required"])


async def test_what_is_sent_fits_the_models(make_headway: MakeHeadway) -> None:
    """Answers of the surface validate, and have nothing that the models do not know."""
    app = FastAPI()
    headway = made(make_headway)
    headway.init_app(app)
    app.post("/start")(starting(headway))

    async with visiting(app) as http:
        started = (await http.post("/start")).json()
        listed = (await http.get("/jobs")).json()
        lost = (await http.get("/jobs/x")).json()

    models: Any = (JobDocument, JobBatch, JobProblem)
    for model, sent in zip(models, (started, listed, lost), strict=True):
        dumped = model.model_validate(sent).model_dump(mode="json", exclude_unset=True)
        assert dumped == sent


# ── the router ────────────────────────────────────────────────────────────────────────────────


async def test_the_router_opens_with_the_app(make_headway: MakeHeadway) -> None:
    """Included by hand, in a router of the app, after a route that matches everything else."""
    headway = made(make_headway)
    app, outer = FastAPI(), APIRouter()
    outer.include_router(headway.router())
    app.include_router(outer)
    app.add_middleware(headway.middleware)
    app.post("/start")(starting(headway))

    async with visiting(app) as http:
        started = await http.post("/start")
        found = await http.get(started.headers["location"])
        streamed = await http.get(f"{started.headers['location']}/events")

    assert found.status_code == 200
    assert "event: end" in streamed.text


async def test_a_router_at_another_place_is_told_at_once(make_headway: MakeHeadway) -> None:
    """Links would lead nowhere: the app does not start, and the message says what to write."""
    app = FastAPI()
    app.include_router(made(make_headway).router(), prefix="/api")

    with pytest.raises(LifespanFailed, match=r"Headway\(path='/api/jobs'\)"):
        async with lived(app):
            pass


async def test_the_surface_comes_before_what_matches_everything(make_headway: MakeHeadway) -> None:
    """A catch-all route of the app does not hide the surface."""
    app = FastAPI()
    app.get("/{path:path}")(lambda path: "caught")
    made(make_headway).init_app(app)

    async with visiting(app) as http:
        assert (await http.get("/jobs")).json() == {"jobs": [], "gone": []}
        assert (await http.get("/other")).json() == "caught"


async def test_dependencies_of_the_app_stand_before_the_surface(make_headway: MakeHeadway) -> None:
    """What the app asks of its own routes it can ask here, too; their background tasks run."""
    ran: list[str] = []

    def key(background: BackgroundTasks, key: str = "") -> None:
        background.add_task(ran.append, key)
        if key != "open":
            raise HTTPException(401)

    app = FastAPI()
    headway = made(make_headway)
    app.include_router(headway.router(), dependencies=[Depends(key)])

    async with visiting(app) as http:
        assert (await http.get("/jobs")).status_code == 401
        assert (await http.get("/jobs?key=open")).status_code == 200
    assert ran == ["open"]


# ── dependencies ──────────────────────────────────────────────────────────────────────────────


async def test_dependencies_tell_who_asks_and_for_which_job(make_headway: MakeHeadway) -> None:
    """`owner` names the visitor, `job` is theirs, and somebody else's is a 404."""
    headway = made(make_headway, identify=lambda request: request.headers.get("x-user"))
    app = FastAPI()
    headway.init_app(app)
    app.post("/start")(starting(headway))
    owner = Annotated[str | None, Depends(headway.owner)]
    job_of = Annotated[Job, Depends(headway.job)]

    @app.get("/titles/{job_id}")
    async def title(who: owner, job: job_of) -> dict[str, str | None]:
        return {"who": who, "title": job.title}

    async with visiting(app) as http:
        job_id = (await http.post("/start", headers={"x-user": "ann"})).json()["id"]
        mine = await http.get(f"/titles/{job_id}", headers={"x-user": "ann"})
        theirs = await http.get(f"/titles/{job_id}", headers={"x-user": "bob"})

    assert mine.json() == {"who": "ann", "title": "Nothing"}
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")


def test_a_starlette_app_is_sent_to_its_own_door() -> None:
    """The wrong door is told at once."""
    from starlette.applications import Starlette

    with pytest.raises(TypeError, match=r"headway\.starlette"):
        Headway(Starlette())
