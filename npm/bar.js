import { isOver, JobWatcher } from "./watcher.js";
import { join, texts, Words } from "./words.js";

const ETA_MS = 5e3; // faster changes are noise
const SWIFT_MS = 500; // news that come faster are steps small enough; a glide would never arrive
const PATIENCE_MS = 400; // what ends sooner needs no bar
const HTML = "http://www.w3.org/1999/xhtml";
const SVG = "http://www.w3.org/2000/svg";
const ticking = new Set(); // the bars that show a time: one clock for all
let clock = 0;

function tick(bar, on) {
	ticking[on ? "add" : "delete"](bar);
	if (ticking.size) clock ||= setInterval(() => ticking.forEach((one) => one.draw()), 1e3);
	else clock = (clearInterval(clock), 0);
}

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host{--_ink:currentColor 25%;--_color:var(--headway-accent,color-mix(in srgb,#3b82f6,var(--_ink)));--_track:var(--headway-track,color-mix(in srgb,currentColor 12%,#0000));--_size:var(--headway-height,.5rem);--_hatch:repeating-linear-gradient(135deg,color-mix(in srgb,currentColor 35%,#0000) 0 4px,#0000 0 8px);--_dir:1;display:block;container-type:inline-size;min-inline-size:12rem;line-height:1.5;font-variant-numeric:tabular-nums}
:host(:dir(rtl)){--_dir:-1}
:host([hidden]),[hidden]{display:none!important}
#base{outline:0;position:relative}
.waiting{visibility:hidden}
#head,#foot{display:flex;gap:0 .75em;align-items:center;min-block-size:2em}
#label,#note,#meta{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#label{display:block;font-weight:600}
#percent{min-inline-size:4ch;text-align:end}
#foot{font-size:.875em}
#title,#say{display:flex;flex:1;gap:.4em;min-inline-size:0}
#icon{flex:none;inline-size:1em;block-size:1.5em;fill:none;stroke:var(--_color);stroke-width:2;stroke-linecap:round}
#facts{display:flex;gap:1em;align-items:center;min-inline-size:0}
#facts>span{opacity:.85;white-space:nowrap}
#bar{block-size:var(--_size);border-radius:var(--headway-radius,99px);overflow:hidden;print-color-adjust:exact;background:var(--_track)}
#fill{block-size:100%;border-radius:inherit;background:var(--_color);translate:calc((var(--headway-ratio) - 1)*100%*var(--_dir));transition:translate var(--_glide)}
.queued,.cancelling,.cancelled,.gone{--_color:color-mix(in srgb,currentColor 65%,#0000)}
.succeeded{--_color:var(--headway-success,color-mix(in srgb,#16a34a,var(--_ink)))}
.stalled,.retrying{--_color:var(--headway-warning,color-mix(in srgb,#c77700,var(--_ink)))}
.failed,.forbidden{--_color:var(--headway-danger,color-mix(in srgb,#e5484d,var(--_ink)))}
:is(.reconnecting,.offline) #fill{opacity:.5}
:is(.stalled,.retrying,.reconnecting,.offline,.failed) #fill{background-image:var(--_hatch)}
.failed #note{white-space:normal}
.indeterminate #fill{inline-size:40%;animation:flow 1.6s infinite}
@keyframes flow{0%{translate:calc(var(--_dir)*-100%)}to{translate:calc(var(--_dir)*250%)}}
button,a{display:inline-flex;align-items:center;flex:none;font:inherit;font-size:.8em;color:inherit;text-decoration:none;padding:0 .75em;min-block-size:24px;background:none;border:1px solid #8888;border-radius:.5em;cursor:pointer}
:is(button,a):hover{border-color:currentColor}
:is(button,a):focus-visible{outline:2px solid}
#status,#alert{position:absolute;inline-size:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@container (inline-size<28rem){#foot{flex-wrap:wrap;align-content:start;min-block-size:3.4em;padding-block-start:.3em}#say,#facts{flex:1 0 100%}#elapsed{margin-inline-start:auto}}
@media (prefers-reduced-motion){#fill{transition:none}.indeterminate #fill{inline-size:100%;animation:none;translate:0;background:var(--_hatch)}}
@media print{button{display:none!important}}
@media (forced-colors:active){#icon{stroke:CanvasText}#bar{border:1px solid}#base #fill{background-color:Highlight}}
`);

/** The shadow tree: tag, id and part, parent, role. */
const TREE = `div base
div head base
div title head
slot label title
span percent head
slot actions head
button cancel head
button retry head
a result head
div bar base progressbar
div fill bar
div foot base
div say foot
svg icon say
path shape icon
span note say
div facts foot
span meta facts
span elapsed facts
span eta facts
div status base status
div alert base alert`;

const CIRCLE = "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2";
/** A shape for each state, for those who do not see the colour. */
const SHAPES = {
	connecting: "M3 8h.01M8 8h.01M13 8h.01",
	queued: CIRCLE + "M8 5v3l2 2",
	running: "M5 3l8 5-8 5z",
	indeterminate: "M1 8q3.5-7 7 0t7 0",
	finishing: "M3 4l4 4-4 4M9 4l4 4-4 4",
	stalled: "M8 2l7 12H1zM8 7v3M8 12h.01",
	retrying: "M13 8a5 5 0 1 1-2-4l2 2V2",
	reconnecting: "M5 2L2 5h9M11 14l3-3H5",
	offline: CIRCLE + "M4 4l8 8",
	cancelling: "M3 3h10v10H3z",
	cancelled: CIRCLE + "M5 8h6",
	succeeded: "M2 9l4 4 8-9",
	failed: "M3 3l10 10M13 3L3 13",
	gone: "M3 8h10",
	forbidden: "M3 7h10v7H3zM5 7V5a3 3 0 0 1 6 0v2",
};

/** Whether a link may point there: a path or http, no `javascript:`, no `data:`. */
const isSafe = (url) => url && /^(https?:\/\/|[^:]*(\/|$))/i.test(url);

/** Draws a JobWatcher. See docs/element.md for its attributes, properties, methods, events, parts and custom properties. */
export class HeadwayBar extends HTMLElement {
	static observedAttributes = ["src", "label", "nocancel", "variant", "log"];
	static strings = texts;
	/** @type {Record<string, any>} texts of this bar; also if a script set it before this module came */
	strings = this.strings ?? {};
	words = new Words(this);
	/** @type {any} */
	watcher;
	#ui = {};
	#internals = this.attachInternals();
	#busy;
	#problem;
	#given;
	#shown;
	#newsAt = 0;
	#extras = {};
	#seen = {};
	#etaAt = 0;
	#spoken;
	#speech;

	constructor() {
		super();
		const ui = this.#ui;
		const root = this.attachShadow({ mode: "open" });
		root.adoptedStyleSheets = [sheet];
		for (const row of TREE.split("\n")) {
			const [tag, id, parent, role] = row.split(" ");
			/** @type {any} */
			const node = document.createElementNS(/svg|path/.test(tag) ? SVG : HTML, tag);
			ui[id] = Object.assign(node, { id, part: id, role: role ?? null });
			if (tag == "slot") node.name = id;
			if (tag != "div" && id != "percent") node.dir = "auto";
			(ui[parent] ?? root).append(node);
		}
		ui.icon.setAttribute("viewBox", "0 0 16 16");
		ui.icon.ariaHidden = true;
		ui.base.tabIndex = -1;
		ui.bar.ariaValueMin = 0;
		ui.bar.ariaValueMax = 100;
		ui.label.onslotchange = () => this.draw();
		ui.cancel.onclick = () => this.cancel();
		ui.retry.onclick = () => this.retry();
	}

	get src() {
		return this.getAttribute("src") ?? "";
	}

	set src(src) {
		this.setAttribute("src", src);
	}

	/** The status document; set it before the bar is in a page, for its first paint. */
	get job() {
		return this.watcher?.job ?? this.#given;
	}

	set job(job) {
		this.#given = job;
		this.watcher?.take(job);
	}

	connectedCallback() {
		this.#follow();
		setTimeout(() => this.draw((this.#shown = true)), PATIENCE_MS);
	}

	disconnectedCallback() {
		this.watcher?.close();
		for (const extra of Object.values(this.#extras)) extra.close?.();
		tick(this, false);
		clearTimeout(this.#speech);
	}

	attributeChangedCallback(name, old, value) {
		if (!this.isConnected || old == value) return;
		if (name == "src") this.#follow();
		else this.draw();
	}

	/** Draws another job, at once if its status document is at hand. */
	#follow() {
		const old = this.job;
		this.watcher?.close();
		this.watcher = this.src ? new JobWatcher(this.src) : undefined;
		const data = this.querySelector('script[type="application/json"]');
		if (data) this.watcher?.take(JSON.parse(data.textContent));
		this.watcher?.take(old); // given, or the bar was moved in its page
		this.draw();
		this.watcher?.addEventListener("connection", ({ detail }) => this.#tell("connection", detail));
		this.watcher?.addEventListener("update", ({ detail }) => {
			const swift = Date.now() < this.#newsAt + SWIFT_MS;
			this.#newsAt = Date.now();
			this.#ui.base.style.setProperty("--_glide", swift ? "0s" : ".3s");
			if (isOver(detail.state)) this.#problem = "";
			this.#tell("update", detail);
			if (!isOver(detail.state)) return;
			this.#tell(detail.state, detail);
			this.#tell("done", detail);
		});
	}

	#tell(name, detail) {
		this.draw();
		const options = { detail, bubbles: true, composed: true, cancelable: true };
		return this.dispatchEvent(new CustomEvent("headway-" + name, options));
	}

	/** Asks the server to cancel, unless a listener prevents it. */
	async cancel() {
		if (this.#tell("before-cancel", this.job)) await this.#ask("cancelling", () => this.watcher.cancel());
	}

	/** Runs a failed job anew and follows the new one, unless a listener prevents that. */
	retry() {
		return this.#ask("queued", async () => {
			const job = await this.watcher.retry();
			if (!this.#tell("retry", job)) return;
			this.src = job.links.self;
			this.watcher.take(job);
		});
	}

	reconnect() {
		this.watcher?.reconnect();
	}

	/** Shows the answer hoped for until the true one is here. */
	async #ask(busy, request) {
		if (this.#busy) return;
		[this.#busy, this.#problem] = [busy, ""];
		this.draw();
		await request().catch((error) => (this.#problem = this.words.say("refused", { why: error.message })));
		this.#busy = "";
		this.draw();
	}

	/** What only some bars have comes when it is wanted; without it, the rest works. */
	async #bring(name, bring) {
		if (this.#extras[name]) return;
		this.#extras[name] = {};
		this.#extras[name] = await bring().then((extra) => extra.create(this, this.#ui), () => ({ draw() {} }));
		this.draw();
	}

	#eta(job, now) {
		if (job.eta_s == null) return "";
		const left = job.eta_s - Math.max(0, now - Date.parse(job.updated_at)) / 1e3;
		return left < 10 ? this.words.say("soon") : this.words.say("eta", { time: this.words.time(left, 10) });
	}

	#label(job) {
		const slotted = this.#ui.label.assignedNodes().map((node) => node.textContent);
		return this.getAttribute("label") || slotted.join("").trim() || job.title || "";
	}

	#isNew(key, value) {
		return this.#seen[key] !== value && ((this.#seen[key] = value), true);
	}

	#write(id, text) {
		const node = this.#ui[id];
		if (!this.#isNew(id, text)) return;
		node.hidden = !text;
		if (node.firstChild) node.firstChild.data = text;
		else node.textContent = text;
		if (id == "note") node.title = text; // where it is cut short
	}

	/** Shows how it is now. */
	draw(_) {
		const [ui, words] = [this.#ui, this.words];
		/** @type {any} */
		const focused = this.shadowRoot?.activeElement;
		const { job = {}, state: actual = "connecting", now } = this.watcher ?? {};
		const { progress = {}, links = {}, error, resumed_ratio: resumed } = job;
		const state = this.#busy || actual;
		const over = isOver(state);
		const live = state == "running" || state == "indeterminate";
		const ratio = state == "succeeded" ? 1 : progress.ratio;
		const percent = words.percent(ratio);
		const counts = words.counts(progress);
		const label = this.#label(job);
		const at = (name) => Date.parse(job[name]);

		const has = (name) => this.hasAttribute(name);
		const variant = this.getAttribute("variant") ?? "";

		if (variant) this.#bring("variants", () => import("./variants.js"));
		else if (has("log") || progress.stages?.[0]) this.#bring("details", () => import("./details.js"));
		if (has("outside")) this.#bring("outside", () => import("./outside.js"));
		const extras = Object.values(this.#extras);
		const old = over || has("immediate") || at("updated_at") - at("created_at") > PATIENCE_MS;
		this.#shown ||= old && extras.every((extra) => extra.draw);
		const n = job.attempt + (job.state == "queued"); // the one that runs or will
		const attempt = n > 1 && words.say("attempt", { n, max: job.max_attempts });
		const wait = (at("retry_at") - now) / 1e3;
		const said = words.say(state, { attempt, time: wait > 0 && words.time(wait, 1) });
		const stage = variant && progress.stages?.findLast((stage) => stage.ratio != 1)?.name;
		const reason = state == "failed" && join(error?.title, error?.detail);
		const note = join((live && (job.note ?? stage)) || said, reason, this.#problem);

		const shape = `${state} ${variant} ${this.#shown ? "" : "waiting"}`;
		if (this.#isNew("shape", shape)) {
			this.dataset.state = state;
			this.#internals.states?.clear();
			this.#internals.states?.add(state);
			ui.base.className = shape;
			ui.shape.setAttribute("d", SHAPES[state]);
		}
		if (this.#isNew("ratio", ratio)) ui.bar.style.setProperty("--headway-ratio", ratio ?? 0);
		this.#write("label", label);
		this.#write("percent", percent);
		this.#write("note", note);
		const again = resumed && words.say("resumed", { percent: words.percent(resumed) });
		this.#write("meta", join(counts, state != "retrying" && attempt, again));
		const elapsed = ((at("finished_at") || now) - at("started_at")) / 1e3;
		this.#write("elapsed", job.state != "queued" && elapsed >= 1 ? words.clock(elapsed) : "");
		const eta = live ? this.#eta(job, now) : "";
		if (!eta || Date.now() - this.#etaAt >= ETA_MS) {
			this.#write("eta", eta);
			this.#etaAt = eta ? Date.now() : 0;
		}

		const cancel = links.cancel && !over && state != "cancelling" && !has("nocancel");
		const href = state == "succeeded" && [job.result?.url, links.result].find(isSafe);
		for (const [id, shown] of Object.entries({ cancel, retry: links.retry, result: href })) {
			this.#write(id, shown ? words.say(id) : "");
			ui[id].ariaLabel = join(words.say(id), label);
		}
		if (href) ui.result.href = href;
		if (focused?.hidden) (ui.retry.hidden ? ui.base : ui.retry).focus();

		ui.bar.ariaLabel = label || said;
		ui.bar.ariaValueNow = percent ? Math.floor(ratio * 100) : null;
		ui.bar.ariaValueText = join(percent, counts, note);
		tick(this, this.isConnected && !over && (job.state == "running" || state == "retrying"));
		this.#say(state, ratio, join(label, percent, note));
		for (const extra of extras) extra.draw?.(state);
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
