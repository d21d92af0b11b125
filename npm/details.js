/** What stands below a bar: the stages of the work, and its log. */
const SHOWN = 4; // stages, until one asks for all
const READ_MS = 2e3; // between two looks at the log
const texts = {
	stages: { one: "{done} of {n} stage done", other: "{done} of {n} stages done" },
	log: "Log",
	empty: "Nothing in the log yet",
};
const DONE = "M2 9l4 4 8-9";
const OPEN = "M8 5.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 1 0 0-5";
const LEFT = "M4 8h8";
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
#more{font-size:.875em}
#stages{margin:.25em 0 0;padding:0;list-style:none}
#stages li{display:grid;grid-template-columns:1em minmax(4em,1fr) auto 6em 4.5ch;gap:.6em;align-items:center;min-block-size:1.75em;padding-inline-start:calc(var(--_depth)*1.2em)}
#stages span{justify-self:start;max-inline-size:100%;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#stages :is(.counts,.percent){justify-self:end}
#stages .counts{opacity:.85}
#stages svg,.more svg{inline-size:1em;block-size:1em;fill:none;stroke:currentColor;stroke-width:2;stroke-linecap:round;stroke-linejoin:round;opacity:.7}
#stages .open svg{stroke:var(--_color);fill:var(--_color);opacity:1}
#stages .track{block-size:calc(var(--_size)*.6);border-radius:var(--headway-radius,99px);overflow:hidden;background:var(--_track);print-color-adjust:exact}
#stages .track>div{block-size:100%;border-radius:inherit;background:var(--_color);translate:calc((var(--_ratio) - 1)*100%*var(--_dir));transition:translate var(--_glide)}
#stages .unknown .track>div{translate:none;background:var(--_hatch)}
#stages .done .track{visibility:hidden}
button.more{border:0;padding:0;gap:.4em;font-size:1em;opacity:.85}
button.more:hover{opacity:1;text-decoration:underline}
button.more svg{transition:rotate .15s}
button.more[aria-expanded=true] svg{rotate:180deg}
#lines{max-block-size:14em;margin:.4em 0 .25em;padding:.6em .8em;overflow:auto;overscroll-behavior:contain;border:1px solid color-mix(in srgb,currentColor 18%,#0000);border-radius:.5em;font:.925em/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext}
#lines:focus-visible{outline:2px solid;outline-offset:1px}
@container (inline-size<28rem){#stages li{grid-template-columns:1em minmax(0,1fr) 4em 4.5ch}#stages .counts{display:none}#elapsed[hidden]~.more{margin-inline-start:auto}}
@media (prefers-reduced-motion){#stages .track>div,.more svg{transition:none}}
@media (forced-colors:active){#stages .track{border:1px solid}#stages .track>div{background-color:Highlight}}
`);

/** @returns {any} */
function make(tag, parent, attributes = {}) {
	const space = /svg|path/.test(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
	const node = document.createElementNS(space, tag);
	for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
	parent.append(node);
	return node;
}

const makeIcon = (parent, d = "") => make("path", make("svg", parent, { viewBox: "0 0 16 16", "aria-hidden": "true" }), { d });

function makeToggle(parent, name) {
	const button = make("button", parent, { class: "more", part: name + "-toggle", "aria-expanded": "false" });
	const text = make("span", button, { dir: "auto" });
	makeIcon(button, "M3 6l5 5 5-5");
	return { button, text, isOpen: () => button.ariaExpanded == "true" };
}

function makeRow(parent) {
	const row = make("li", parent, { part: "stage" });
	const shape = makeIcon(row);
	const [name, counts] = ["name", "counts"].map((is) => make("span", row, { class: is, part: "stage-" + is, dir: "auto" }));
	const track = make("div", row, { class: "track", part: "stage-bar" });
	make("div", track, { part: "stage-fill" });
	const percent = make("span", row, { class: "percent", part: "stage-percent" });
	return { row, shape, name, counts, track, percent, seen: "" };
}

/** Which stages stand there before one asks for all: those that run, and the last ones before them. */
function choose(stages, isDone) {
	const indices = stages.map((_, index) => index);
	const open = indices.filter((index) => !isDone(stages[index])).slice(0, SHOWN);
	const rest = indices.filter((index) => isDone(stages[index])).slice(open.length - SHOWN);
	return new Set([...open, ...(open.length < SHOWN ? rest : [])]);
}

/** @param {any} bar */
export function create(bar, ui) {
	const { words } = bar;
	for (const [key, text] of Object.entries(texts)) bar.constructor.strings[key] ??= text;
	bar.shadowRoot.adoptedStyleSheets.push(sheet);
	const more = make("div", ui.base, { id: "more", part: "details" });
	const list = make("ul", more, { id: "stages", part: "stages", role: "list" });
	const toggle = makeToggle(more, "stages");
	const opener = makeToggle(ui.facts, "log");
	const lines = make("pre", more, { id: "lines", part: "log", role: "region", tabindex: "0", dir: "auto" });
	const rows = [];
	let [timer, last] = [0, ""]; // the job whose log is here to its end
	const write = (node, text) => node.textContent != text && (node.textContent = text);
	for (const { button, isOpen } of [toggle, opener])
		button.onclick = () => {
			button.ariaExpanded = String(!isOpen());
			last = "";
			bar.draw();
		};

	async function read({ id, links, finished_at: over }) {
		timer = 1;
		const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
		try {
			const { lines: found } = await bar.watcher.ask("GET", links.log);
			write(lines, found.join("\n") || words.say("empty"));
			if (over) last = id;
		} catch {} // the bar itself tells what is wrong
		if (atEnd) lines.scrollTop = lines.scrollHeight;
		timer = setTimeout(() => bar.draw((timer = 0)), READ_MS);
	}

	function drawStages(stages, state) {
		const isDone = ({ ratio }) => ratio == 1 || state == "succeeded";
		const chosen = choose(stages, isDone);
		const folds = stages.length > SHOWN;
		stages.forEach((stage, index) => {
			const one = (rows[index] ??= makeRow(list));
			one.row.hidden = folds && !toggle.isOpen() && !chosen.has(index);
			const seen = JSON.stringify([stage, state, words.lang]);
			if (one.row.hidden || seen == one.seen) return;
			one.seen = seen;
			const done = isDone(stage);
			const over = /failed|cancelled/.test(state);
			one.row.className = done ? "done" : over ? "left" : stage.ratio == null ? "open unknown" : "open";
			one.shape.setAttribute("d", done ? DONE : over ? LEFT : OPEN);
			one.row.style.setProperty("--_depth", stage.depth ?? 0);
			one.track.style.setProperty("--_ratio", stage.ratio ?? 0);
			write(one.name, stage.name);
			one.name.title = stage.name; // where it is cut short
			write(one.counts, words.counts(done ? { done: stage.done, unit: stage.unit } : stage));
			write(one.percent, done ? "" : words.percent(stage.ratio));
		});
		for (const { row } of rows.splice(stages.length)) row.remove();
		toggle.button.hidden = !folds;
		write(toggle.text, words.say("stages", { done: words.number(stages.filter(isDone).length), n: stages.length }));
	}

	return {
		draw(state) {
			const { job } = bar;
			if (!job) return;
			drawStages(job.progress.stages ?? [], state);
			list.hidden = !rows.length;
			opener.button.hidden = !bar.hasAttribute("log") || !job.links.log;
			lines.hidden = opener.button.hidden || !opener.isOpen();
			write(opener.text, words.say("log"));
			lines.ariaLabel = words.say("log");
			if (!lines.hidden && !timer && last != job.id && !document.hidden) read(job);
		},
		close: () => (timer = (clearTimeout(timer), 0)),
	};
}
