/** Keeps the operators' page as it is on the server: reads it again, and puts in what is new. */
const POLL_MS = 5e3;
const SOON_MS = 300; // news that come together need one look
const SLOWEST_MS = 6e4; // between two looks, when they fail
const LEAVE_MS = 1e3; // on the way from the rows to the button nothing moves either
const texts = {
	late: "Not up to date: the server does not answer. Trying again…",
	gone: "You may not see this any more.",
	fresh: { one: "Show {n} new job", other: "Show {n} new jobs" },
	refused: "That did not work: {why}",
};
const board = document.querySelector("[data-board]");
const table = board.querySelector("table");
const body = table.tBodies[0];
const news = board.querySelector("[data-news]");
const shower = board.querySelector("[data-show]");
const held = [body, shower];
let [timer, failures, asking, again] = [0, 0, false, false];
let leftAt = -LEAVE_MS; // when the pointer or the focus left the rows or the button
let waiting; // rows as they should be, while one points at those that are there

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

/** Times as on the clock of who looks. */
function localise(root) {
	const today = new Date().toDateString();
	for (const time of root.querySelectorAll("time")) {
		const at = new Date(time.dateTime);
		time.textContent = (at.toDateString() == today ? clock : day).format(at);
		time.title = whole.format(at);
	}
}

function say(text) {
	if (news.textContent != text) news.textContent = text;
}

/** The page as it is now. Not by fetch and a parser: a strict page lets no script parse text. */
function read() {
	return new Promise((tell, fail) => {
		const request = new XMLHttpRequest();
		request.open("GET", location.href);
		request.responseType = "document";
		request.timeout = SLOWEST_MS;
		request.setRequestHeader("Accept", "text/html");
		request.onload = () => (request.status == 200 && request.response ? tell(request.response) : fail(request.status));
		request.onerror = request.ontimeout = () => fail(0);
		request.send();
	});
}

/** What stands for *old* where the focus was, if that is gone. */
function refocus(old, row) {
	const twin = old && [...row.querySelectorAll("a,button")].find(({ tagName, ariaLabel }) => tagName == old.tagName && ariaLabel == old.ariaLabel);
	(twin ?? row.querySelector("a"))?.focus({ preventScroll: true });
}

/** Puts what has changed into a row. A bar that lives is left alone: its stream is quicker than we are. */
function patch(row, fresh) {
	const focused = row.contains(document.activeElement) && document.activeElement;
	[...fresh.cells].forEach((cell, n) => {
		const old = row.cells[n];
		if (old.querySelector("headway-bar") && cell.querySelector("headway-bar")) return;
		if (old.innerHTML != cell.innerHTML) old.replaceChildren(...document.adoptNode(cell).childNodes);
	});
	if (focused && !focused.isConnected) refocus(focused, row);
}

/** Puts the rows in. Nothing comes, goes or moves under the pointer or the focus: then it waits, and a button says so. */
function arrange(force = false) {
	if (!waiting) return;
	const known = new Map([...body.rows].map((row) => [row.id, row]));
	const n = waiting.filter(({ id }) => !known.has(id)).length;
	const here = held.some((part) => part.matches(":hover") || part.contains(document.activeElement));
	const busy = !force && (here || performance.now() - leftAt < LEAVE_MS);
	shower.hidden = !busy || !n;
	shower.textContent = texts.fresh[new Intl.PluralRules("en").select(n)].replace("{n}", String(n));
	if (busy) return;
	const wanted = waiting.map((fresh) => known.get(fresh.id) ?? document.adoptNode(fresh));
	for (const row of known.values()) if (!wanted.includes(row)) row.remove();
	// From the end, so that what stays is not moved: a bar that is moved asks for its job again.
	wanted.reduceRight((next, row) => (row.isConnected && row.nextElementSibling == next ? row : body.insertBefore(row, next)), null);
	waiting = undefined;
}

function show(found) {
	localise(found);
	for (const old of board.querySelectorAll("[data-part]")) {
		const fresh = found.querySelector(`[data-part=${old.dataset.part}]`);
		const focused = old.contains(document.activeElement);
		if (fresh && !focused && old.outerHTML != fresh.outerHTML) old.replaceWith(document.adoptNode(fresh));
	}
	waiting = [...found.querySelector("tbody").rows];
	for (const fresh of waiting) {
		const row = body.rows.namedItem(fresh.id);
		if (row) patch(row, fresh);
	}
	arrange();
}

async function look() {
	clearTimeout(timer);
	if (document.hidden) return;
	if (asking) return (again = true);
	[asking, again] = [true, false];
	try {
		show(await read());
		if (failures) say("");
		failures = 0;
	} catch (status) {
		if ([401, 403, 404].includes(status)) return say(texts.gone);
		failures++;
		say(texts.late);
	} finally {
		asking = false;
	}
	plan(again ? SOON_MS : Math.min(POLL_MS * 2 ** failures, SLOWEST_MS));
}

function plan(ms = SOON_MS) {
	clearTimeout(timer);
	timer = setTimeout(look, ms);
}

/** Sends a form of a row, without leaving the page. */
async function act(form) {
	const row = form.closest("tr");
	if (form.dataset.sent) return;
	form.dataset.sent = "yes";
	say("");
	try {
		const response = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
		if (!response.ok) throw new Error((await response.json()).title);
		if (response.status == 204) forget(row);
	} catch (error) {
		say(texts.refused.replace("{why}", error.message));
	}
	delete form.dataset.sent;
	look();
}

function forget(row) {
	const next = row.nextElementSibling ?? row.previousElementSibling;
	const focused = row.contains(document.activeElement);
	row.remove();
	if (focused) (next?.querySelector("a") ?? board.querySelector(".scroll")).focus();
}

body.addEventListener("submit", (event) => {
	event.preventDefault();
	act(event.target);
});
for (const name of ["headway-done", "headway-retry"]) body.addEventListener(name, () => plan());
body.addEventListener("headway-update", ({ target, detail }) => {
	const row = target.closest("tr");
	const was = row.dataset.seen;
	row.dataset.seen = [detail.state, detail.stalled, detail.cancel_requested, detail.attempt].join();
	if (was && was != row.dataset.seen) plan();
});
function leave() {
	leftAt = performance.now();
	setTimeout(arrange, LEAVE_MS + 1); // clocks are coarse
}
for (const part of held) {
	for (const name of ["pointerleave", "focusout"]) part.addEventListener(name, leave);
}
shower.addEventListener("click", () => {
	arrange(true);
	body.querySelector("a")?.focus({ preventScroll: true });
	table.scrollIntoView({ block: "nearest" });
});
document.addEventListener("visibilitychange", () => look());
document.addEventListener("keydown", (event) => {
	const typing = /** @type {Element} */ (event.target).matches("input,select,textarea");
	if (event.key != "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
	event.preventDefault();
	/** @type {HTMLInputElement} */ (board.querySelector("[name=task]")).select();
});
addEventListener("pageshow", ({ persisted }) => persisted && look());

localise(board);
plan(POLL_MS);
