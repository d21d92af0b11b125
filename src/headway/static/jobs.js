/** The visitor's own jobs, those that run first: found again after a reload, and in every tab. */
const POLL_MS = 3e4;
const AGAIN_MS = 3e3; // after a failure
const SETTLE_MS = 100; // news that come together need one look
const ENDED = 10; // so many that are over are shown before one asks for more
const LISTED = 50; // so many the server lists
const texts = {
	none: "You have started nothing yet.",
	unlisted: "Your jobs cannot be listed now. Trying again…",
	forget: "Forget",
	more: { one: "Show {n} more", other: "Show {n} more" },
	newest: "Only the newest {n} are listed.",
};
const PASSED = ["log", "nocancel", "variant", "outside"];
const PARTS =
	"base:bar-base,head,title,label,cancel,retry,result,percent,bar,fill,foot,say,icon,shape,note,facts,meta,elapsed,eta,details,stages,stage," +
	"stage-name,stage-counts,stage-bar,stage-fill,stage-percent,stages-toggle,log,log-toggle,notify";
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host{display:block}
:host([hidden]),[hidden]{display:none!important}
#base{outline:0}
ul{display:grid;grid-template-columns:minmax(0,1fr);gap:1.25rem;margin:0;padding:0;list-style:none}
a{color:inherit;text-decoration:none}
a:hover{text-decoration:underline}
button{display:inline-flex;flex:none;align-items:center;justify-content:center;font:inherit;font-size:.8em;color:inherit;padding:0 .75em;min-block-size:24px;background:none;border:1px solid #8888;border-radius:.5em;cursor:pointer}
button:hover{border-color:currentColor}
:is(a,button):focus-visible{outline:2px solid;outline-offset:1px}
p{margin:.25em 0;font-size:.875em}
li{container-type:inline-size}
@container (inline-size<28rem){[part=forget]{inline-size:24px;padding:0;border-radius:.4rem;font-size:0}[part=forget]::before{content:"×";content:"×"/"";font-size:1rem}}
#foot{display:flex;flex-wrap:wrap;gap:.5em 1em;align-items:center;margin-block-start:1em;font-size:.875em}
@media print{button{display:none}}
`);
const make = (tag, attributes) => Object.assign(document.createElement(tag), attributes);

/** @param {any} host */
export function createList(host, { announce, HeadwayBar, isOver, JobWatcher, join, Words }) {
	for (const [key, text] of Object.entries(texts)) HeadwayBar.strings[key] ??= text;
	const words = new Words(host);
	const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
	root.adoptedStyleSheets = [sheet];
	const base = make("div", { id: "base", part: "base", tabIndex: -1 });
	const list = make("ul", { part: "list", role: "list" });
	const none = make("slot", { name: "empty", hidden: true });
	const foot = make("div", { id: "foot", part: "foot" });
	const more = make("button", { part: "more", hidden: true, onclick: () => arrange((all = true)) });
	const said = make("span", { role: "status", part: "said" });
	foot.append(more, said);
	base.append(list, none, foot);
	root.replaceChildren(base);
	const rows = new Map();
	let [all, full, known, etag, timer, asking] = [false, false, false, "", 0, false];
	let controller, channel;
	const src = () => new URL(host.getAttribute("src") ?? new URL("..", import.meta.url), document.baseURI);
	const over = ({ bar }) => isOver(bar.watcher?.state ?? bar.job.state);

	function add(job) {
		const item = make("li", { part: "item" });
		const bar = make("headway-bar", { strings: host.strings, job, src: job.links.self, lang: words.lang });
		bar.setAttribute("exportparts", PARTS);
		for (const name of PASSED) if (host.hasAttribute(name)) bar.setAttribute(name, host.getAttribute(name));
		const link = make("a", { slot: "label", href: job.links.self, textContent: job.title });
		const forget = make("button", { slot: "actions", part: "forget", onclick: () => drop(row) });
		const problem = make("p", { role: "alert", part: "problem", hidden: true });
		const row = { id: job.id, item, bar, forget, problem };
		bar.append(...(host.hasAttribute("nolinks") ? [] : [link]), forget);
		item.append(bar, problem);
		bar.addEventListener("headway-update", () => label(row));
		rows.set(job.id, row);
		label(row);
		return row;
	}

	function label(row) {
		row.forget.hidden = !over(row) || !row.bar.job?.finished_at;
		row.forget.textContent = row.forget.title = words.say("forget");
		row.forget.ariaLabel = join(words.say("forget"), row.bar.job?.title);
	}

	/** Has the server forget an ended job. The focus goes to the next one. */
	async function drop(row) {
		try {
			await row.bar.watcher.ask("DELETE");
		} catch (error) {
			row.problem.textContent = words.say("refused", { why: error.message });
			row.problem.hidden = false;
			return;
		}
		announce({ forgotten: row.id });
		const next = row.item.nextElementSibling ?? row.item.previousElementSibling;
		remove(row);
		(next?.querySelector("button:not([hidden])") ?? next?.querySelector("a") ?? base).focus();
	}

	function remove(row) {
		row.item.remove();
		rows.delete(row.id);
		arrange();
	}

	/** What runs stands before what is over; nothing moves under the pointer or the focus. */
	function arrange(_) {
		const busy = list.matches(":hover") || list.contains(root.activeElement);
		const newest = [...rows.values()].sort((a, b) => Date.parse(b.bar.job.created_at) - Date.parse(a.bar.job.created_at));
		const ended = newest.filter(over);
		const wanted = [...newest.filter((row) => !over(row)), ...ended];
		const fresh = wanted.filter(({ item }) => !item.isConnected);
		if (busy && list.firstChild) fresh.reverse().forEach(({ item }) => list.prepend(item));
		else wanted.reduceRight((next, { item }) => (item.nextSibling == next && item.isConnected ? item : list.insertBefore(item, next)), null);
		fresh.forEach(label);
		const hidden = all ? [] : ended.slice(ENDED).filter(({ item }) => !item.contains(root.activeElement));
		for (const row of rows.values()) row.item.hidden = hidden.includes(row);
		more.hidden = !hidden.length;
		more.textContent = words.say("more", { n: hidden.length });
		none.hidden = !known || rows.size > 0;
		none.textContent = words.say("none");
		write(full && !hidden.length ? words.say("newest", { n: words.number(LISTED) }) : "");
	}

	function write(text) {
		said.textContent = text;
		foot.hidden = more.hidden && !text;
	}

	function show(jobs) {
		known = true;
		full = jobs.length >= LISTED;
		const listed = new Set(jobs.map(({ id }) => id));
		for (const job of jobs) if (rows.has(job.id)) rows.get(job.id).bar.watcher?.take(job);
		else add(job);
		for (const row of [...rows.values()]) if (!listed.has(row.id) && over(row)) remove(row);
		arrange();
	}

	async function look() {
		if (document.hidden || asking) return;
		asking = true;
		let wait = POLL_MS;
		try {
			const headers = new Headers({ Accept: "application/json" });
			if (etag) headers.set("If-None-Match", etag);
			const response = await JobWatcher.fetch(src(), { headers, cache: "no-store", signal: controller.signal });
			if (response.ok) {
				show((await response.json()).jobs);
				etag = response.headers.get("ETag") ?? "";
			} else if (response.status == 304) arrange();
			else {
				wait = Math.max(response.headers.get("Retry-After") * 1e3 || 0, AGAIN_MS);
				throw response;
			}
		} catch {
			if (controller.signal.aborted) return;
			wait = Math.min(wait, AGAIN_MS * 3);
			if (!rows.size) write(words.say("unlisted"));
		} finally {
			asking = false;
		}
		plan(wait);
	}

	function plan(ms = SETTLE_MS) {
		clearTimeout(timer);
		timer = setTimeout(look, ms);
	}

	function hear({ data }) {
		if (data.forgotten) {
			const row = rows.get(data.forgotten);
			if (row) remove(row);
		} else if (!rows.has(data.started)) plan();
	}

	/** A job that was tried again has a row of its own: the failed one is still there. */
	function retried(event) {
		event.preventDefault();
		if (!rows.has(event.detail.id)) add(event.detail);
		arrange();
		rows.get(event.detail.id).item.scrollIntoView({ block: "nearest" });
	}

	/** A page put aside must not hold a channel. */
	function listen() {
		channel ??= new BroadcastChannel("headway");
		channel.onmessage = hear;
	}

	function hush() {
		channel?.close();
		channel = undefined;
	}

	function open() {
		controller = new AbortController();
		const { signal } = controller;
		const on = (target, name, act) => target.addEventListener(name, act, { signal });
		on(list, "headway-retry", retried);
		on(list, "headway-connection", ({ target }) => rows.forEach((row) => row.bar == target && label(row)));
		on(document, "visibilitychange", () => document.hidden || plan());
		on(document, "headway-started", () => plan());
		on(window, "online", () => plan());
		on(window, "pagehide", hush);
		on(window, "pageshow", ({ persisted }) => {
			listen();
			if (persisted) plan();
		});
		listen();
		const given = [...host.querySelectorAll('headway-bar > script[type="application/json"]')];
		if (given.length) show(given.map((script) => JSON.parse(script.textContent)));
		for (const child of [...host.children]) if (child.slot != "empty") child.remove();
		if (given.length) plan(POLL_MS);
		else look();
	}

	function close() {
		clearTimeout(timer);
		controller.abort();
		hush();
		asking = false;
	}

	return { open, close, refresh: () => plan(0) };
}
