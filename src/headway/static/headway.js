/**
 * `<headway-bar src="/jobs/ID">`: live progress of a job. Children are the page without JavaScript, except `slot="label"`
 * and a `<script type="application/json">` holding the status document for the first paint.
 * Attributes: src, label (else the slot, else the job's title), nocancel; set by the bar: data-state, also `:state()`.
 * Properties: src, job (the status document), strings (overrides). Methods: cancel(), retry(), reconnect().
 * Events: headway-update, -succeeded, -failed, -cancelled, -done (detail: the job; none for the document in the page),
 *   headway-connection (detail: {state}), headway-before-cancel (cancelable).
 * Parts: base label percent bar fill note meta eta cancel retry result.
 * Custom properties: --headway-accent, -success, -warning, -danger, -track, -height, -radius.
 */
const SETTLE_MS = 50; // bars that come together share a connection
const BLIP_MS = 3e3; // a shorter loss is not shown
const SILENCE_MS = 4e4; // over two heartbeats
const ETA_MS = 5e3; // faster changes are noise
const Accept = "application/json";
const feeds = [];
let hidden = false;
let grace = 0;

/** Yields [event, data] of an SSE body. Lines end in CR, LF or both; chunks end anywhere. */
async function* parse(body, onChunk) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let [rest, event, data, cr] = ["", "", "", false];
	for (let chunk; !(chunk = await reader.read()).done; ) {
		onChunk();
		const text = cr ? chunk.value.replace(/^\n/, "") : chunk.value; // the other half of a CRLF
		cr = chunk.value.endsWith("\r");
		const lines = (rest + text).split(/\r\n?|\n/);
		rest = lines.pop() ?? "";
		for (const line of lines) {
			const [, name, value] = /^([^:]*):? ?(.*)/s.exec(line) ?? [];
			if (name == "event") event = value;
			if (name == "data") data += value + "\n";
			if (line) continue;
			if (data) yield [event, data];
			event = data = "";
		}
	}
}

/** One connection: a stream, or polls in a hidden tab and behind a proxy that buffers. */
function createFeed(base) {
	const watchers = new Set();
	let abort = new AbortController();
	let [timer, ticker, due, awaited, query, etag] = [0, 0, Infinity, "", "", ""];
	let [badSince, notBefore, failures, silences, buffered, stale] = [Date.now(), 0, 0, 0, false, false];
	const open = () => [...watchers].filter(({ state }) => !isOver(state));
	const ids = () => [...new Set(open().map(({ id }) => id))];
	const take = (job) => open().forEach((watcher) => watcher.take(job));
	const show = (state, some = ids()) => open().forEach((one) => some.includes(one.id) && one.connect(state));
	const expect = (what, ms) => ([awaited, due] = [what, Date.now() + ms]);

	/** Takes good news, bad (false) or none; compares times, as timers stop while a laptop sleeps. */
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
		ticker ||= setInterval(tick, 1e3);
		clearTimeout(timer);
		timer = setTimeout(attempt, ms + Math.max(0, notBefore - Date.now()), abort.signal);
	}

	async function attempt(signal) {
		if (!ids()[0]) {
			clearInterval(ticker);
			ticker = 0;
			return;
		}
		if (query != (query = "?id=" + ids().join("&id="))) etag = "";
		const poll = hidden || buffered;
		const headers = new Headers({ Accept: poll ? Accept : "text/event-stream" });
		if (poll && etag) headers.set("If-None-Match", etag);
		if (poll && !hidden) headers.set("Prefer", "wait=25");
		if (poll) expect("answer", SILENCE_MS);
		else expect("greeting", 1e4); // some proxies hold back even the headers
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
		stale = false;
		for await (const [event, text] of parse(body, () => expect("byte", SILENCE_MS))) {
			if (event == "bye") return Math.random() * 500;
			hear(event, text);
			if (!ids()[0]) return;
		}
		throw "cut";
	}

	function hear(event, text) {
		try {
			const data = JSON.parse(text);
			if (event == "job") take(data);
			if (event == "gone") show(event, [data.id]);
			if (event == "hb") [silences, stale] = [0, data.live === false];
			if (stale) badSince ||= Date.now();
			else tick(true);
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

	/** @param {any} error  a response, or what fetch threw */
	function failed({ status, headers }) {
		badSince ||= Date.now();
		silences = abort.signal.aborted ? silences + 1 : 0;
		buffered ||= silences > 1 || abort.signal.reason == "greeting";
		if ([401, 403].includes(status)) show("forbidden");
		if ([404, 410].includes(status)) show("gone");
		const after = headers?.get("Retry-After");
		notBefore = (+after ? Date.now() + after * 1e3 : Date.parse(after)) || 0;
		return Math.random() * Math.min(3e4, 1e3 * 2 ** failures++);
	}

	return { base, watchers, ids, plan, tick, isBad: () => badSince };
}

const isOver = (state) => ["succeeded", "failed", "cancelled", "gone", "forbidden"].includes(state);

/** Follows one job on its page's connection. Fires `update` (detail: the job) and `connection` (detail: {state}). */
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
		const fits = (feed) => feed.base == base && feed.ids().length < 50; // the server's limit
		this.#feed = feeds.find(fits) ?? feeds[feeds.push(createFeed(base)) - 1];
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
		this.dispatchEvent(new CustomEvent("update", { detail: job }));
	}

	connect(state) {
		if (state == this.connection) return;
		this.connection = state;
		this.dispatchEvent(new CustomEvent("connection", { detail: { state } }));
	}

	async #post(url) {
		const response = await JobWatcher.fetch(new URL(url, this.src), { method: "POST", headers: { Accept } });
		const answer = await response.json();
		if (response.ok) return answer;
		throw new Error(answer.title);
	}

	cancel = async () => this.take(await this.#post(this.job?.links.cancel ?? this.src + "/cancel"));

	/** Resolves to the new job. */
	retry = () => this.#post(this.job.links.retry);

	reconnect() {
		this.connect("connecting");
		this.#feed.plan();
	}

	close() {
		this.#feed.watchers.delete(this);
		if (!isOver(this.state)) this.#feed.plan(SETTLE_MS);
	}
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
look();
document.addEventListener("visibilitychange", look);
addEventListener("online", look);
addEventListener("offline", () => feeds.forEach((feed) => feed.tick(false)));
addEventListener("pagehide", () => feeds.forEach((feed) => feed.plan(2e9)));
addEventListener("pageshow", ({ persisted }) => persisted && feeds.forEach((feed) => feed.plan()));

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host{display:block;container-type:inline-size;min-inline-size:12rem;line-height:1.5;font-variant-numeric:tabular-nums}
:host([hidden]),[hidden]{display:none!important}
#base{--_ink:currentColor 25%;--_color:var(--headway-accent,color-mix(in srgb,#3b82f6,var(--_ink)));--_hatch:repeating-linear-gradient(135deg,color-mix(in srgb,currentColor 35%,#0000) 0 4px,#0000 0 8px);outline:0;position:relative}
#head,#foot{display:flex;gap:0 .75em;align-items:center;min-block-size:2em}
#label,#note,#meta{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#label,#note{flex:1}
#label{font-weight:600}
#foot{font-size:.875em}
#note::before{content:var(--_icon,"")/"";color:var(--_color)}
#meta,#eta{opacity:.85}
#bar{block-size:var(--headway-height,.5rem);border-radius:var(--headway-radius,99px);overflow:hidden;print-color-adjust:exact;background:var(--headway-track,color-mix(in srgb,currentColor 12%,#0000))}
#fill{block-size:100%;inline-size:calc(var(--_ratio)*100%);border-radius:inherit;background:var(--_color);transition:inline-size .3s}
#base:is(.queued,.cancelling,.cancelled,.gone){--_color:color-mix(in srgb,currentColor 65%,#0000);--_icon:"■ "}
#base.queued{--_icon:"○ "}
#base.succeeded{--_color:var(--headway-success,color-mix(in srgb,#16a34a,var(--_ink)));--_icon:"✓ "}
#base:is(.stalled,.retrying){--_color:var(--headway-warning,color-mix(in srgb,#c77700,var(--_ink)));--_icon:"▲ "}
#base:is(.failed,.forbidden){--_color:var(--headway-danger,color-mix(in srgb,#e5484d,var(--_ink)));--_icon:"✕ "}
#base:is(.retrying,.reconnecting,.offline){--_icon:"↻ "}
:is(.reconnecting,.offline) #fill{opacity:.5}
:is(.stalled,.retrying,.reconnecting,.offline,.failed) #fill{background-image:var(--_hatch)}
.failed #note{white-space:normal}
.indeterminate #fill{inline-size:40%;animation:flow 1.6s infinite}
@keyframes flow{0%{margin-inline:-40%}to{margin-inline:100%}}
button,a{display:inline-flex;align-items:center;font:inherit;font-size:.8em;color:inherit;text-decoration:none;padding:0 .75em;min-block-size:24px;background:none;border:1px solid #8888;border-radius:.5em;cursor:pointer}
:is(button,a):hover{border-color:currentColor}
:is(button,a):focus-visible{outline:2px solid;outline-offset:1px}
#status,#alert{position:absolute;inline-size:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@container (inline-size<28rem){#foot{display:grid;grid-template-columns:minmax(0,1fr) auto;min-block-size:3.4em;align-content:start;padding-block-start:.3em}#note{grid-column:1/-1}}
@media (prefers-reduced-motion){#fill{transition:none}.indeterminate #fill{inline-size:100%;animation:none;background:var(--_hatch)}}
@media print{button{display:none!important}}
@media (forced-colors:active){#bar{border:1px solid}#base #fill{background:Highlight}}
`);

/** The shadow tree: tag, id and part, parent. */
const TREE = `
div base
div head base
span label head
slot slot label
button cancel head
button retry head
a result head
span percent head
div bar base
div fill bar
div foot base
span note foot
span meta foot
span eta foot
div status base
div alert base`;

/** Whether a link may point there: no `javascript:`, no `data:`. */
const isSafe = (url) => url && /^https?:$/.test(Object.assign(document.createElement("a"), { href: url }).protocol);
const join = (...texts) => texts.filter(Boolean).join(" · ");

/** Draws a JobWatcher. */
export class HeadwayBar extends HTMLElement {
	static observedAttributes = ["src", "label", "nocancel"];
	/** Texts of all bars and their language; set entries here, or in `strings` of one bar. Functions get the values. */
	static strings = {
		lang: "en",
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
		succeeded: "Done!",
		failed: "Failed",
		gone: "No longer available",
		forbidden: "You may not see this",
		attempt: "Attempt {n} of {max}",
		resumed: "resumed at {percent}",
		counts: "{done} of {total} {unit}",
		unit: ({ unit, n }) => (n == 1 || /[A-Zs%]$/.test(unit) ? unit : unit + "s"),
		eta: "about {time} left",
		soon: "a few seconds left",
		cancel: "Cancel",
		retry: "Try again",
		result: "Open result",
		refused: "That did not work: {why}",
	};
	/** @type {Record<string, any>} also if a script set it before this module came */
	strings = Reflect.get(this, "strings") ?? {};
	#ui = {};
	#internals = this.attachInternals();
	#watcher;
	#busy;
	#problem;
	#etaAt = 0;
	#spoken;
	#speech;
	#timer;

	constructor() {
		super();
		const ui = this.#ui;
		const root = this.attachShadow({ mode: "open" });
		root.adoptedStyleSheets = [sheet];
		for (const row of TREE.trim().split("\n")) {
			const [tag, id, parent] = row.split(" ");
			ui[id] = Object.assign(document.createElement(tag), { id, part: id });
			(ui[parent] ?? root).append(ui[id]);
		}
		Object.assign(ui.bar, { role: "progressbar", ariaValueMin: 0, ariaValueMax: 100 });
		ui.status.role = "status";
		ui.alert.role = "alert";
		ui.base.tabIndex = -1;
		ui.slot.name = "label";
		ui.slot.onslotchange = () => this.#draw();
		ui.cancel.onclick = () => this.cancel();
		ui.retry.onclick = () => this.retry();
	}

	get src() {
		return this.getAttribute("src") ?? "";
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
		clearTimeout(this.#speech);
	}

	attributeChangedCallback(name, old, value) {
		if (!this.isConnected || old == value) return;
		if (name == "src") this.#follow();
		else this.#draw();
	}

	/** Draws another job, at once if its status document is at hand. */
	#follow() {
		const old = this.job;
		this.#watcher?.close();
		this.#watcher = this.src ? new JobWatcher(this.src) : undefined;
		const data = this.querySelector('script[type="application/json"]');
		if (data) this.#watcher?.take(JSON.parse(data.textContent));
		this.#watcher?.take(old); // the bar was moved in its page
		this.#draw();
		this.#watcher?.addEventListener("connection", ({ detail }) => this.#tell("connection", detail));
		this.#watcher?.addEventListener("update", ({ detail }) => {
			if (isOver(detail.state)) this.#problem = "";
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

	/** Asks the server to cancel, unless a listener prevents it. */
	async cancel() {
		if (this.#tell("before-cancel", this.job)) await this.#ask("cancelling", () => this.#watcher.cancel());
	}

	/** Runs a failed job anew and follows the new one. */
	retry() {
		return this.#ask("queued", async () => {
			const job = await this.#watcher.retry();
			this.src = job.links.self;
			this.#watcher.take(job);
		});
	}

	reconnect() {
		this.#watcher?.reconnect();
	}

	/** Shows the answer hoped for until the true one is here. */
	async #ask(busy, request) {
		if (this.#busy) return;
		[this.#busy, this.#problem] = [busy, ""];
		this.#draw();
		await request().catch((error) => (this.#problem = this.#text("refused", { why: error.message })));
		this.#busy = "";
		this.#draw();
	}

	#text(key, values = {}) {
		const text = this.strings[key] ?? HeadwayBar.strings[key] ?? key;
		return typeof text == "string" ? text.replace(/{(\w+)}/g, (_, name) => values[name]) : text(values);
	}

	#number(value, options) {
		return value.toLocaleString(this.#text("lang"), options);
	}

	/** Rounds down: 100 % is for the end. */
	#percent(ratio) {
		return ratio == null ? "" : this.#number(Math.floor(ratio * 100 + 1e-9) / 100, { style: "percent" });
	}

	#time(seconds, step) {
		const [unit, size] = seconds < 50 ? ["second", 1] : seconds < 5400 ? ["minute", 60] : ["hour", 3600];
		const count = size > 1 ? Math.round(seconds / size) : Math.ceil(seconds / step) * step;
		return this.#number(count, { style: "unit", unit, unitDisplay: "long" });
	}

	#counts({ done, total, unit }) {
		if (total == null) return "";
		const values = { done: this.#number(done), total: this.#number(total) };
		return this.#text("counts", { ...values, unit: unit ? this.#text("unit", { unit, n: total }) : "" }).trim();
	}

	#eta(seconds) {
		if (seconds == null) return "";
		return seconds < 10 ? this.#text("soon") : this.#text("eta", { time: this.#time(seconds, 10) });
	}

	#label(job) {
		const slotted = this.#ui.slot.assignedNodes().map((node) => node.textContent);
		return this.getAttribute("label") || slotted.join("").trim() || job.title || "";
	}

	#write(id, text) {
		const node = this.#ui[id];
		if (node.textContent != text) node.textContent = text;
		node.hidden = !text;
	}

	#draw() {
		const ui = this.#ui;
		/** @type {any} */
		const focused = this.shadowRoot?.activeElement;
		const { job = {}, state: actual = "connecting" } = this.#watcher ?? {};
		const { progress = {}, links = {}, error, resumed_ratio: resumed } = job;
		const state = this.#busy || actual;
		const live = state == "running" || state == "indeterminate";
		const ratio = state == "succeeded" ? 1 : progress.ratio;
		const percent = this.#percent(ratio);
		const counts = this.#counts(progress);
		const label = this.#label(job);

		const n = job.attempt + (job.state == "queued"); // the one that runs or will
		const attempt = n > 1 && this.#text("attempt", { n, max: job.max_attempts });
		const wait = (Date.parse(job.retry_at) - Date.now()) / 1e3;
		const said = this.#text(state, { attempt, time: wait > 0 && this.#time(wait, 1) });
		const stage = progress.stages?.find((stage) => stage.ratio < 1)?.name;
		const reason = state == "failed" && join(error?.title, error?.detail);
		const note = join((live && (job.note ?? stage)) || said, reason, this.#problem);

		ui.base.className = this.dataset.state = state;
		this.#internals.states?.clear();
		this.#internals.states?.add(state);
		ui.fill.style.setProperty("--_ratio", ratio ?? 0);
		this.#write("slot", label);
		this.#write("percent", percent);
		this.#write("note", note);
		ui.note.title = note; // where it is cut short
		const again = resumed && this.#text("resumed", { percent: this.#percent(resumed) });
		this.#write("meta", join(counts, state != "retrying" && attempt, again));
		const eta = live ? this.#eta(job.eta_s) : "";
		if (!eta || Date.now() - this.#etaAt >= ETA_MS) {
			this.#write("eta", eta);
			this.#etaAt = eta ? Date.now() : 0;
		}

		const cancel = links.cancel && !isOver(state) && state != "cancelling" && !this.hasAttribute("nocancel");
		const { retry } = links;
		const href = state == "succeeded" && [job.result?.url, links.result].find(isSafe);
		for (const [id, shown] of Object.entries({ cancel, retry, result: href })) {
			this.#write(id, shown ? this.#text(id) : "");
			ui[id].ariaLabel = join(this.#text(id), label);
		}
		if (href) ui.result.href = href;
		if (focused?.hidden) (ui.retry.hidden ? ui.base : ui.retry).focus();

		ui.bar.ariaLabel = label || said;
		ui.bar.ariaValueNow = percent && Math.floor(ratio * 100);
		if (!percent) ui.bar.removeAttribute("aria-valuenow");
		ui.bar.ariaValueText = join(percent, counts, note);
		clearTimeout(this.#timer);
		if (state == "retrying") this.#timer = setTimeout(() => this.#draw(), 1e3);
		this.#say(state, ratio, join(label, percent, note));
	}

	/** Speaks at the start, each quarter and each change of state; of a lost connection only if it lasts. */
	#say(state, ratio, text) {
		const key = /running|indet|finish/.test(state) ? Math.floor((ratio ?? 0) * 4) : state;
		clearTimeout(this.#speech);
		if (key == this.#spoken || state == "connecting") return;
		const speak = () => {
			this.#spoken = key;
			this.#ui[state == "failed" ? "alert" : "status"].textContent = text;
		};
		this.#speech = setTimeout(speak, /reconnecting|offline/.test(state) ? 7e3 : 100);
	}
}

if (!customElements.get("headway-bar")) customElements.define("headway-bar", HeadwayBar);
