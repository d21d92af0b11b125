/**
 * `<headway-bar src="/jobs/ID">`: live progress of a job. The children serve pages without JavaScript, but `slot="label"`
 * and a `<script type="application/json">` (the status document, for a first paint without a wait).
 *
 * Attributes: `src`, `label` (else the slot, else the job's title), `nocancel`; set by the bar: `data-state`, `:state()`.
 * Properties: `src`, `job` (the status document), `strings` (overrides). Methods: `cancel()`, `retry()`, `reconnect()`.
 * Events: `headway-update`, `-succeeded`, `-failed`, `-cancelled`, `-done` (detail: the job; not for the document in the
 *   page), `headway-connection` (detail: {state}), `headway-before-cancel` (cancelable).
 * Parts: base label percent bar fill icon note meta eta cancel retry result.
 * Custom properties: --headway-accent, -success, -warning, -danger, -track, -height, -radius.
 */
const SETTLE_MS = 50; // bars that come or go together cost one connection
const BLIP_MS = 3e3; // a shorter loss of the connection is not shown
const SILENCE_MS = 4e4; // more than two heartbeats
const Accept = "application/json";
const feeds = [];
let [hidden, grace] = [false, 0];

/** Yields [event, data] of an SSE body. Lines end in CR, LF or both; chunks end anywhere. */
async function* parse(body, onChunk) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let [rest, event, data] = ["", "", ""];
	for (let chunk; !(chunk = await reader.read()).done; ) {
		onChunk();
		const text = rest.endsWith("\r") ? chunk.value.replace(/^\n/, "") : chunk.value;
		const lines = (rest.replace("\r", "") + text).split(/\r\n?|\n/);
		rest = lines.pop() + (text.endsWith("\r") ? "\r" : "");
		for (const line of lines) {
			const [, name, value] = /^([^:]*):? ?(.*)/s.exec(line);
			if (name == "event") event = value;
			if (name == "data") data += value + "\n";
			if (name == "retry") yield [name, value];
			if (line) continue;
			if (data) yield [event, data];
			event = data = "";
		}
	}
}

/** One connection: a stream, or polls when the tab is hidden or a proxy holds the stream back. */
function createFeed(base) {
	const watchers = new Set();
	let [abort, timer, due, awaited] = [new AbortController(), 0, Infinity, ""];
	let [badSince, notBefore, failures, silences, retryMs] = [Date.now(), 0, 0, 0, 1e3];
	let [query, etag, buffered] = ["", "", false];
	const open = () => [...watchers].filter(({ state }) => !isOver(state));
	const ids = () => [...new Set(open().map(({ id }) => id))];
	const take = (job) => open().forEach((watcher) => watcher.take(job));
	const show = (state, which = ids()) => open().forEach((one) => which.includes(one.id) && one.connect(state));
	const expect = (what, ms) => ([awaited, due] = [what, Date.now() + ms]);

	/** Takes good news (true), bad (false) or none. Times are compared, as timers stop while a laptop sleeps. */
	function tick(good) {
		const now = Date.now();
		if (good) badSince = failures = 0;
		if (good === false) badSince ||= now - BLIP_MS;
		if (now > due) abort.abort(awaited);
		if (now - badSince >= BLIP_MS) show(!badSince ? "open" : navigator.onLine ? "reconnecting" : "offline");
	}

	/** Ends what is under way and plans the next attempt. */
	function plan(ms = 0) {
		abort.abort();
		abort = new AbortController();
		due = Infinity;
		clearTimeout(timer);
		timer = setTimeout(attempt, ms + Math.max(0, notBefore - Date.now()), abort.signal);
	}

	async function attempt(signal) {
		if (!ids()[0]) return;
		if (query != (query = "?id=" + ids().join("&id="))) etag = "";
		const poll = hidden || buffered;
		const headers = { Accept, "If-None-Match": etag, Prefer: hidden ? "" : "wait=25" };
		if (!poll) headers.Accept = "text/event-stream";
		expect("answer", SILENCE_MS);
		let wait;
		try {
			const url = base + (poll ? "" : "events") + query;
			const response = await JobWatcher.fetch(url, { signal, headers, cache: "no-store" });
			if (!response.ok && response.status != 304) throw response;
			wait = await (poll ? read : listen)(response);
		} catch (error) {
			if (signal == abort.signal) wait = failed(error);
		}
		if (signal == abort.signal) plan(wait);
	}

	async function listen({ body }) {
		expect("greeting", 5e3);
		for await (const [event, text] of parse(body, () => expect("byte", SILENCE_MS))) {
			if (event == "bye") return Math.random() * retryMs;
			if (event == "retry") retryMs = +text || retryMs;
			else hear(event, text);
			if (!ids()[0]) return 0;
		}
		throw "cut";
	}

	function hear(event, text) {
		try {
			const data = JSON.parse(text);
			if (event == "job") take(data);
			if (event == "gone") show(event, [data.id]);
			if (event == "hb") silences = 0;
			tick(data.live !== false);
		} catch {} // not from our server
	}

	async function read(response) {
		if (response.status != 304) {
			const { jobs, gone } = await response.json();
			etag = response.headers.get("ETag") ?? "";
			jobs.forEach(take);
			show("gone", gone);
		}
		tick(true);
		return hidden ? 15e3 : 1e3;
	}

	/** Learns from an error response, or what fetch threw; tells how long to wait. */
	function failed({ status, headers }) {
		badSince ||= Date.now();
		silences = abort.signal.aborted ? silences + 1 : 0;
		buffered ||= silences > 1 || abort.signal.reason == "greeting";
		if ([401, 403].includes(status)) show("forbidden");
		if ([404, 410].includes(status)) show("gone");
		const after = headers?.get("Retry-After");
		notBefore = (+after ? Date.now() + after * 1e3 : Date.parse(after)) || 0;
		return Math.random() * Math.min(3e4, retryMs * 2 ** failures++);
	}

	const nudge = (always) => (always || badSince) && plan();
	return { base, watchers, ids, plan, tick, nudge };
}

const isOver = (state) => ["succeeded", "failed", "cancelled", "gone", "forbidden"].includes(state);

/** Follows one job on the connection of its page. Fires `update` (detail: the job) and `connection` (detail: {state}). */
export class JobWatcher extends EventTarget {
	/** Makes every request; replace it to add headers. */
	static fetch = (url, init) => fetch(url, init);
	job; // the status document
	connection = "connecting"; // then open, reconnecting, offline, gone or forbidden
	#feed;

	constructor(src) {
		super();
		this.src = new URL(src, document.baseURI).href;
		const [, base, id] = /(.*\/)([^?#]*)/.exec(this.src);
		const fits = (feed) => feed.base == base && feed.ids().length < 50; // the server's limit
		this.#feed = feeds.find(fits) ?? feeds[feeds.push(createFeed(base)) - 1];
		this.id = id;
		this.#feed.watchers.add(this);
		this.#feed.plan(SETTLE_MS);
	}

	/** All that is known, in one word: a key of LOOKS. */
	get state() {
		const { job, connection } = this;
		if (isOver(job?.state)) return job.state;
		if (connection != "open" && (!job || connection != "connecting")) return connection;
		if (!job) return "connecting";
		if (job.cancel_requested) return "cancelling";
		if (Date.parse(job.retry_at) > Date.now()) return "retrying";
		if (job.state == "queued") return "queued";
		if (job.stalled) return "stalled";
		const { ratio } = job.progress;
		return ratio == null ? "indeterminate" : ratio < 0.99 ? "running" : "finishing";
	}

	/** Takes a status document, if it is news. */
	take(job) {
		if (job?.id != this.id || job.rev <= this.job?.rev) return;
		const { attempt, progress } = this.job ?? job;
		if (attempt == job.attempt && job.progress.ratio < progress.ratio) job.progress.ratio = progress.ratio;
		this.job = job;
		this.#fire("update", job);
	}

	connect(state) {
		if (state == this.connection) return;
		this.connection = state;
		this.#fire("connection", { state });
	}

	#fire(type, detail) {
		this.dispatchEvent(new CustomEvent(type, { detail }));
	}

	async #post(url) {
		const response = await JobWatcher.fetch(url, { method: "POST", headers: { Accept } });
		const answer = await response.json();
		if (response.ok) return answer;
		throw new Error(answer.title);
	}

	async cancel() {
		this.take(await this.#post(this.src + "/cancel"));
	}

	/** Resolves to the new job. */
	retry() {
		return this.#post(this.job.links.retry);
	}

	reconnect() {
		this.connect("connecting");
		this.#feed.plan();
	}

	close() {
		this.#feed.watchers.delete(this);
		if (!isOver(this.state)) this.#feed.plan(SETTLE_MS);
	}
}

/** A hidden tab lets go of its connection after a grace; back in sight, what failed is tried again at once. */
function look() {
	const away = document.hidden;
	const turn = () => {
		const changed = hidden != away;
		hidden = away;
		feeds.forEach((feed) => feed.nudge(changed));
	};
	clearTimeout(grace);
	grace = setTimeout(turn, away ? 1e4 : 0);
}
look();
document.addEventListener("visibilitychange", look);
addEventListener("online", look);
addEventListener("offline", () => feeds.forEach((feed) => feed.tick(false)));
addEventListener("pagehide", () => feeds.forEach((feed) => feed.plan(2e9)));
addEventListener("pageshow", ({ persisted }) => persisted && feeds.forEach((feed) => feed.plan()));
setInterval(() => feeds.forEach((feed) => feed.tick()), 1e3);

/** Icon and tone of each state. */
const LOOKS = {
	queued: "○ idle",
	indeterminate: " flow",
	stalled: "! warn",
	retrying: "↻ warn",
	reconnecting: "↻ dim",
	offline: "⊘ dim",
	cancelling: "… idle",
	cancelled: "■ idle",
	succeeded: "✓ good",
	failed: "✕ bad",
	gone: "∅ idle",
	forbidden: "⊘ bad",
};

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host{display:block;container-type:inline-size;min-inline-size:12rem;line-height:1.5;font-variant-numeric:tabular-nums}
:host([hidden]),[hidden]{display:none!important}
#base{outline:0;--_color:var(--headway-accent,#3b82f6)}
#head,#foot{display:flex;flex-wrap:wrap;gap:0 .75em;align-items:center;min-block-size:2em}
#label,#note{flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#label{font-weight:600}
#foot{font-size:.875em}
#icon{color:var(--_color);font-weight:700}
#meta,#eta{opacity:.75}
#bar{block-size:var(--headway-height,.5rem);border-radius:var(--headway-radius,99px);overflow:hidden;
	background:var(--headway-track,color-mix(in srgb,currentColor 14%,transparent))}
#fill{block-size:100%;inline-size:calc(var(--_ratio)*100%);border-radius:inherit;background:var(--_color);transition:inline-size .3s}
#base.idle{--_color:color-mix(in srgb,currentColor 55%,transparent)}
#base.good{--_color:var(--headway-success,#16a34a)}
#base.warn{--_color:var(--headway-warning,#c77700)}
#base.bad{--_color:var(--headway-danger,#e5484d)}
.bad #note{white-space:normal}
.dim #fill{opacity:.5}
.warn #fill,.dim #fill,.bad #fill{background-image:repeating-linear-gradient(135deg,#fff6 0 4px,#0000 0 8px)}
.flow #fill{inline-size:40%;animation:flow 1.6s infinite}
@keyframes flow{0%{margin-inline:-40%}to{margin-inline:100%}}
button,a{font:inherit;color:inherit;padding:0 .75em;min-block-size:24px;background:none;border:1px solid;border-radius:.4em;text-decoration:none}
:focus-visible{outline:2px solid var(--_color);outline-offset:2px}
#status,#alert{position:absolute;clip-path:inset(50%);inline-size:1px;overflow:hidden;white-space:nowrap}
@container (inline-size<28rem){#note{flex-basis:80%}}
@media (prefers-reduced-motion){#fill{transition:none}.flow #fill{inline-size:100%;animation:none;opacity:.5}}
@media (forced-colors:active){#bar{border:1px solid}#fill{background:Highlight}}
`);

/** Draws a JobWatcher. */
export class HeadwayBar extends HTMLElement {
	static observedAttributes = ["src", "label", "nocancel"];
	static strings = {
		connecting: "Connecting…",
		queued: "Waiting to start",
		running: "Running",
		indeterminate: "Working…",
		finishing: "Finishing…",
		stalled: "The worker is silent",
		retrying: "{attempt}, again in {time}",
		reconnecting: "Reconnecting…",
		offline: "You are offline",
		cancelling: "Cancelling…",
		cancelled: "Cancelled",
		succeeded: "Done",
		failed: "Failed",
		gone: "No longer available",
		forbidden: "You may not see this",
		attempt: "Attempt {n} of {max}",
		resumed: "resumed at {percent}",
		counts: "{done} of {total} {unit}",
		unit: ({ unit, n }) => (n == 1 ? unit : unit + "s"),
		eta: "about {time} left",
		soon: "almost done",
		cancel: "Cancel",
		retry: "Try again",
		result: "Open result",
	};
	#ui = {};
	#internals = this.attachInternals();
	#watcher;
	#busy = "";
	#problem = "";
	#etaAt = 0;
	#spoken = "";
	#speech = 0;
	#timer = 0;

	constructor() {
		super();
		const root = this.attachShadow({ mode: "open" });
		const make = (parent, tag, ids, role = null) => {
			for (const id of ids.split(" ")) {
				const node = (this.#ui[id] = document.createElement(tag));
				parent.append(Object.assign(node, { id, part: id, role }));
			}
			return this.#ui;
		};
		const ui = this.#ui;
		make(root, "div", "base");
		make(ui.base, "div", "head");
		make(ui.head, "span", "label percent");
		make(ui.label, "slot", "slot");
		make(ui.base, "div", "bar", "progressbar");
		make(ui.bar, "div", "fill");
		make(ui.base, "div", "foot");
		make(ui.foot, "span", "icon note meta eta");
		make(ui.foot, "button", "cancel retry");
		make(ui.foot, "a", "result");
		make(ui.base, "div", "status", "status");
		make(ui.base, "div", "alert", "alert");
		ui.base.tabIndex = -1;
		ui.slot.name = "label";
		ui.icon.ariaHidden = "true";
		ui.cancel.onclick = () => this.cancel();
		ui.retry.onclick = () => this.retry();
		ui.slot.onslotchange = () => this.#draw();
		root.adoptedStyleSheets = [sheet];
	}

	get src() {
		return this.getAttribute("src");
	}

	set src(src) {
		this.setAttribute("src", src);
	}

	get job() {
		return this.#watcher?.job;
	}

	connectedCallback() {
		this.#follow();
	}

	disconnectedCallback() {
		this.#watcher?.close();
		clearTimeout(this.#timer);
	}

	attributeChangedCallback(name, old, value) {
		if (!this.#watcher || old == value) return;
		if (name == "src") this.#follow();
		else this.#draw();
	}

	#follow() {
		this.#watcher?.close();
		if (!this.src) return;
		const watcher = (this.#watcher = new JobWatcher(this.src));
		const data = this.querySelector('script[type="application/json"]');
		if (data) watcher.take(JSON.parse(data.textContent));
		this.#draw();
		watcher.addEventListener("connection", ({ detail }) => this.#tell("connection", detail));
		watcher.addEventListener("update", ({ detail }) => {
			this.#tell("update", detail);
			if (!isOver(detail.state)) return;
			this.#tell(detail.state, detail);
			this.#tell("done", detail);
		});
	}

	#tell(name, detail) {
		this.#draw();
		const options = { detail, bubbles: true, composed: true, cancelable: name == "before-cancel" };
		return this.dispatchEvent(new CustomEvent("headway-" + name, options));
	}

	async cancel() {
		if (this.#tell("before-cancel", this.job)) await this.#ask("cancelling", () => this.#watcher.cancel());
	}

	/** Starts a failed job anew and follows the new one. */
	retry() {
		return this.#ask("queued", async () => {
			const job = await this.#watcher.retry();
			this.src = this.src.replace(/[^/]*$/, job.id);
			this.#watcher.take(job);
		});
	}

	reconnect() {
		this.#watcher?.reconnect();
	}

	async #ask(busy, request) {
		[this.#busy, this.#problem] = [busy, ""];
		this.#draw();
		await request().catch((error) => (this.#problem = error.message));
		this.#busy = "";
		this.#draw();
	}

	#text(key, values) {
		const text = this.strings?.[key] ?? HeadwayBar.strings[key];
		return text.call ? text(values) : text.replace(/{(\w+)}/g, (_, name) => values[name]);
	}

	#number(value, options) {
		return value.toLocaleString(this.closest("[lang]")?.lang || "en", options);
	}

	#percent(ratio) {
		return ratio == null ? "" : this.#number(Math.floor(ratio * 100 + 1e-9) / 100, { style: "percent" });
	}

	#time(seconds, step) {
		const [unit, size] = seconds < 50 ? ["second", 1] : seconds < 5400 ? ["minute", 60] : ["hour", 3600];
		const n = size > 1 ? Math.round(seconds / size) : Math.ceil(seconds / step) * step;
		return this.#number(n, { style: "unit", unit, unitDisplay: "long" });
	}

	#draw() {
		const ui = this.#ui;
		const { job = {}, state: now = "connecting" } = this.#watcher ?? {};
		const { progress = {}, links = {}, error = {} } = job;
		const state = this.#busy || now;
		const [icon, tone = ""] = LOOKS[state]?.split(" ") ?? [""];
		const live = state == "running" || state == "indeterminate";
		const percent = this.#percent(state == "succeeded" ? 1 : progress.ratio);
		const label = this.getAttribute("label") ?? job.title ?? "";
		const { done, total, unit } = progress;
		const attempt = job.attempt + (job.state == "queued");
		const tries = attempt > 1 && this.#text("attempt", { n: attempt, max: job.max_attempts });
	}
}

customElements.get("headway-bar") ?? customElements.define("headway-bar", HeadwayBar);
