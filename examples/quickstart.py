"""The smallest app: one task, one button, one bar."""

from quart import Quart

from headway import Progress
from headway.quart import Headway

app = Quart(__name__)
headway = Headway(app)


@headway.task
def count_words(progress: Progress, text: str, rounds: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for n in progress.track(range(rounds), unit="round"):
        progress.note(f"Round {n + 1}")
        for word in text.split():
            found[word] = found.get(word, 0) + 1
    return found


@app.get("/")
async def index():
    await headway.visitor()  # names a new visitor: then even a first double click is one job
    return '<form method="post"><button>Count words</button></form>'


@app.post("/")
async def start():
    job = await count_words.using(key="mine").start("to be or not to be " * 999, rounds=2_000)
    return await headway.reply(job)  # sends the form on to the job's page, with its bar
