/** Follows jobs: one connection for all of a page, and none while it is hidden. */
const SETTLE_MS = 50; // watchers that come together share a request
const BLIP_MS = 3e3; // a shorter loss is not shown
const SILENCE_MS = 4e4; // over two heartbeats
const STANDSTILL_MS = 2e4; // a clock that leaps so far has slept
const REFUSED_MS = 5e3; // until a stream is tried again, the first time: doubles
const BUFFERED_MS = 3e5;
const MOST = 50; // jobs of one request: the server's limit
const SLOTS = 4; // of the six connections that a browser has to a server of HTTP/1.1, in all its tabs
const Accept = "application/json";
const feeds = [];
let hidden = document.hidden;
let grace = 0;
let held; // the signal of the attempt that has this page's connection
let skew = 0; // how far the clock here is ahead of the server's

/** Whether a connection may be held until *signal*: one a page, and a few in all tabs, so that the next page still loads. */
async function take(signal) {
	if (held && !held.aborted) return false;
	held = signal;
	const [{ nextHopProtocol: protocol } = {}] = /** @type {any} */ (performance.getEntriesByName(import.meta.url));
	if (!navigator.locks || /^h[23]/.test(protocol)) return true;
	const keep = (lock) => lock && !signal.aborted && new Promise((free) => signal.addEventListener("abort", free));
	for (let n = 0; n < SLOTS; n++) {
		const options = { ifAvailable: true };
		const asked = new Promise((tell) => navigator.locks.request("headway " + n, options, (lock) => (tell(lock), keep(lock))));
		if (await asked) return true;
	}
	if (held == signal) held = undefined;
	return false;
}

/** One stream; or polls: in a hidden tab, without a slot, where streams are refused or do not come through. */
function createFeed(base) {
	const watchers = new Set();
	let abort = new AbortController();
	let [timer, ticker, ticked, due, awaited, query, etag] = [0, 0, 0, Infinity, "", "", ""];
	let [badSince, notBefore, failures, silences, stale] = [Date.now(), 0, 0, 0, false];
	let [streamAt, refusals] = [0, 0];
	const open = () => [...watchers].filter(({ state }) => !isOver(state));
	const ids = () => [...new Set(open().map(({ id }) => id))];
	const tell = (job) => open().forEach((watcher) => watcher.take(job));
	const show = (state, some = ids()) => open().forEach((one) => some.includes(one.id) && one.connect(state));
	const expect = (what, ms) => ([awaited, due] = [what, Date.now() + ms]);

	/** Takes good news, bad (false) or none; compares times, as timers stop while a laptop sleeps. */
	function tick(good) {
		const now = Date.now();
		if (good) badSince = failures = 0;
		if (good === false) badSince ||= now - BLIP_MS;
		if (now > due) abort.abort(awaited);
		if (now - badSince >= BLIP_MS) show(!badSince ? "open" : navigator.onLine ? "reconnecting" : "offline");
		const slept = ticked && now - ticked > STANDSTILL_MS;
		ticked = now;
		if (slept && !hidden) plan();
	}

	/** Ends what is under way and plans the next attempt. */
	function plan(ms = 0) {
		abort.abort();
		abort = new AbortController();
		due = Infinity;
		ticker ||= setInterval(tick, 1e3);
		clearTimeout(timer);
		timer = setTimeout(attempt, ms + Math.max(0, notBefore - Date.now()), abort.signal);
	}

	async function attempt(signal) {
		if (!ids()[0]) {
			clearInterval(ticker);
			ticker = ticked = 0;
			return;
		}
		const slot = !hidden && (await take(signal));
		if (signal.aborted) return;
		if (query != (query = "?id=" + ids().join("&id="))) etag = "";
		const stream = slot && Date.now() >= streamAt;
		const headers = new Headers({ Accept: stream ? "text/event-stream" : Accept });
		if (!stream && etag) headers.set("If-None-Match", etag);
		if (!stream && slot) headers.set("Prefer", "wait=25");
		if (stream) expect("greeting", 1e4); // some proxies hold back even the headers
		else expect("answer", SILENCE_MS);
		let wait;
		try {
			const url = base + (stream ? "events" : "") + query;
			const response = await JobWatcher.fetch(url, { signal, headers, cache: "no-store" });
			skew = Date.now() - Date.parse(response.headers.get("Date")) || 0;
			if (!response.ok && response.status != 304) throw response;
			wait = await (stream ? listen(response) : read(response, slot));
		} catch (error) {
			if (signal == abort.signal) wait = failed(error, stream);
		}
		if (signal == abort.signal) plan(wait);
	}

	async function listen({ body }) {
		const reader = body.pipeThrough(new TextDecoderStream()).getReader();
		let rest = "";
		stale = false;
		expect("greeting", 5e3);
		for (let chunk; !(chunk = await reader.read()).done; ) {
			expect("byte", SILENCE_MS);
			streamAt = refusals = 0;
			const blocks = (rest + chunk.value).split(/\r?\n\r?\n/);
			rest = blocks.pop() ?? "";
			for (const block of blocks) {
				const [, event, data] = /^event: ?(\w+)[^]*^data: ?([^\n]*)/m.exec(block) ?? [];
				if (event == "bye") return Math.random() * 500;
				if (data) hear(event, data);
				if (!ids()[0]) return;
			}
		}
		throw "cut";
	}

	function hear(event, text) {
		try {
			const data = JSON.parse(text);
			if (event == "job") tell(data);
			if (event == "gone") show(event, [data.id]);
			if (event == "hb") [silences, stale] = [0, data.live === false];
			if (stale) badSince ||= Date.now();
			else tick(true);
		} catch {} // not from our server
	}

	async function read(response, slot) {
		if (response.status != 304) {
			const { jobs, gone } = await response.json();
			etag = response.headers.get("ETag") ?? "";
			jobs.forEach(tell);
			show("gone", gone);
		}
		tick(true);
		return hidden ? 15e3 : slot ? 1e3 : 2e3;
	}

	/** @param {any} error  a response, or what fetch threw */
	function failed({ status, headers }, stream) {
		const now = Date.now();
		badSince ||= now;
		etag = ""; // so that the next poll is answered at once
		if ([401, 403].includes(status)) show("forbidden");
		if ([404, 410].includes(status)) show("gone");
		const said = headers?.get("Retry-After");
		const after = (said * 1e3 || Date.parse(said) - now) || 0;
		silences = abort.signal.aborted ? silences + 1 : 0;
		const buffered = silences > 1 || abort.signal.reason == "greeting";
		if (stream && (buffered || status == 429 || status == 503)) {
			const pause = (buffered ? BUFFERED_MS : REFUSED_MS) * 2 ** refusals++;
			streamAt = now + Math.max(after, Math.min(pause, 36e5));
			return 0; // polls meanwhile
		}
		notBefore = now + after;
		return Math.random() * Math.min(3e4, 1e3 * 2 ** failures++);
	}

	return { base, watchers, ids, plan, tick, isBad: () => badSince };
}

export const isOver = (state) => ["succeeded", "failed", "cancelled", "gone", "forbidden"].includes(state);

/** Follows one job. Fires `update` (detail: the job) and `connection` (detail: {state}). */
export class JobWatcher extends EventTarget {
	/** Makes every request; replace it to add headers. */
	static fetch = (url, init) => fetch(url, init);
	/** @type {any} the last status document */
	job;
	/** connecting, open, reconnecting, offline, gone or forbidden */
	connection = "connecting";
	#feed;

	/** @param {string} src  URL of the job */
	constructor(src) {
		super();
		this.src = new URL(src, document.baseURI).href;
		const [, base, id] = /(.*\/)([^?#]*)/.exec(this.src) ?? [];
		this.id = id;
		const fits = (feed) => feed.base == base && (feed.ids().length < MOST || feed.ids().includes(id));
		this.#feed = feeds.find(fits) ?? feeds[feeds.push(createFeed(base)) - 1];
		this.#feed.watchers.forEach((twin) => twin.id == id && this.take(twin.job));
		this.#feed.watchers.add(this);
		this.#feed.plan(SETTLE_MS);
	}

	/** What to show, in one word. */
	get state() {
		const { job, connection } = this;
		if (isOver(job?.state)) return job.state;
		if (connection != "open" && (!job || connection != "connecting")) return connection;
		if (!job) return "connecting";
		if (job.cancel_requested) return "cancelling";
		if (Date.parse(job.retry_at) > this.now) return "retrying";
		if (job.state == "queued") return "queued";
		if (job.stalled) return "stalled";
		const { ratio } = job.progress;
		return ratio == null ? "indeterminate" : ratio < .99 ? "running" : "finishing";
	}

	/** The server's time; a second or two are not worth a correction. */
	get now() {
		return Date.now() - (Math.abs(skew) > 2e3 ? skew : 0);
	}

	/** Takes a status document, if it is news. */
	take(job) {
		if (job?.id != this.id || job.rev <= this.job?.rev) return;
		const { attempt, progress: { ratio } } = this.job ?? job;
		if (attempt == job.attempt && (job.progress.ratio ?? 1) < ratio) job.progress.ratio = ratio;
		if (!this.job && Date.parse(job.updated_at) - Date.parse(job.created_at) < 5e3) announce({ started: this.id });
		this.job = job;
		this.dispatchEvent(new CustomEvent("update", { detail: job }));
	}

	connect(state) {
		if (state == this.connection) return;
		this.connection = state;
		this.dispatchEvent(new CustomEvent("connection", { detail: { state } }));
	}

	/** Resolves to what the server answers about this job; an Error has the title of its problem. */
	async ask(method, url = this.src) {
		const response = await JobWatcher.fetch(new URL(url, this.src), { method, headers: { Accept } });
		const answer = await response.json().catch(() => ({}));
		if (response.ok) return answer;
		throw new Error(answer.title ?? response.status);
	}

	cancel = async () => this.take(await this.ask("POST", this.job?.links.cancel ?? this.src + "/cancel"));

	/** Resolves to the new job. */
	retry = () => this.ask("POST", this.job.links.retry);

	reconnect() {
		this.connect("connecting");
		this.#feed.plan();
	}

	close() {
		this.#feed.watchers.delete(this);
		if (!isOver(this.state)) this.#feed.plan(SETTLE_MS);
	}
}

/** Tells the lists, in this and other tabs. */
export function announce(news) {
	const channel = new BroadcastChannel("headway");
	channel.postMessage(news);
	channel.close();
}

/** A hidden tab soon lets its connection go; back in sight, what failed is tried at once. */
function look() {
	clearTimeout(grace);
	const turn = () => {
		for (const feed of feeds) if (hidden != document.hidden || feed.isBad()) feed.plan();
		hidden = document.hidden;
	};
	grace = setTimeout(turn, document.hidden ? 1e4 : 0);
}
document.addEventListener("visibilitychange", look);
addEventListener("online", look);
addEventListener("offline", () => feeds.forEach((feed) => feed.plan(feed.tick(false))));
addEventListener("pagehide", () => feeds.forEach((feed) => feed.plan(2e9)));
addEventListener("pageshow", ({ persisted }) => persisted && feeds.forEach((feed) => feed.plan()));
