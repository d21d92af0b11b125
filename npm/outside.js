/** Shows progress outside the page: before its title, in its icon, and by a notification at the end. */
const texts = { notify: "Notify me", notifying: "Will notify you" };
const SIDE = 32;
const shown = new Map(); // the bars that ask for it, and what they show
let prefix = "";
let news = ""; // of the end, until one looks
let refused = false; // by the page's policy: an icon of ours needs img-src data:
let icons; // those of the page, while ours is there
let ours;

/** How far all of them are together; null if nobody knows, undefined if none runs. */
function together(name) {
	const running = [...shown.values()].filter((one) => one.wants.includes(name) && !one.over);
	if (!running.length) return undefined;
	const known = running.filter(({ ratio }) => ratio != null);
	return known.length ? known.reduce((sum, { ratio }) => sum + ratio, 0) / known.length : null;
}

function show(words, color) {
	const ratio = together("title");
	const now = ratio === undefined ? news : `(${words.percent(ratio) || "…"}) `;
	if (now != prefix) {
		const own = document.title;
		document.title = now + (own.startsWith(prefix) ? own.slice(prefix.length) : own);
		prefix = now;
	}
	drawIcon(refused ? undefined : together("icon"), color);
}

function drawIcon(ratio, color) {
	if (ratio === undefined) {
		ours?.remove();
		if (icons) document.head.append(...icons);
		ours = icons = undefined;
		return;
	}
	const percent = String(Math.floor((ratio ?? 0.25) * 100));
	if (ours?.dataset.percent == percent) return;
	if (!ours) {
		icons = [...document.querySelectorAll('link[rel~="icon"]')];
		icons.forEach((icon) => icon.remove());
		ours = document.createElement("link");
		ours.rel = "icon";
		document.head.append(ours);
	}
	ours.dataset.percent = percent;
	ours.href = ring(+percent / 100, color);
}

function ring(ratio, color) {
	const canvas = document.createElement("canvas");
	canvas.width = canvas.height = SIDE;
	const context = canvas.getContext("2d");
	if (!context) return "data:,";
	context.lineWidth = 6;
	context.lineCap = "round";
	context.strokeStyle = color;
	for (const [alpha, part] of [[0.25, 1], [1, ratio]]) {
		context.globalAlpha = alpha;
		context.beginPath();
		context.arc(SIDE / 2, SIDE / 2, SIDE / 2 - 4, -Math.PI / 2, Math.PI * (2 * part - 0.5));
		context.stroke();
	}
	return canvas.toDataURL();
}

document.addEventListener("securitypolicyviolation", ({ blockedURI, effectiveDirective }) => {
	refused ||= blockedURI == "data" && effectiveDirective == "img-src";
	if (refused) drawIcon(undefined);
});

document.addEventListener("visibilitychange", () => {
	news = document.hidden ? news : "";
	for (const { draw } of shown.values()) draw();
});

/** @param {any} bar */
export function create(bar, ui) {
	for (const [key, text] of Object.entries(texts)) bar.constructor.strings[key] ??= text;
	const button = document.createElement("button");
	button.part = "notify";
	button.dir = "auto";
	button.hidden = true;
	ui.cancel.before(button);
	let live = "";
	button.onclick = async () => {
		const wanted = button.ariaPressed != "true" && (await Notification.requestPermission()) == "granted";
		button.ariaPressed = String(wanted);
		bar.draw();
	};

	function ended(state) {
		if (!document.hidden) return;
		const wants = bar.getAttribute("outside") ?? "";
		if (wants.includes("title")) news = state == "succeeded" ? "✓ " : "✕ ";
		if (button.ariaPressed != "true") return;
		try {
			const said = new Notification(ui.bar.ariaLabel, { body: ui.note.textContent, tag: live, lang: bar.words.lang });
			said.onclick = () => window.focus();
		} catch {} // some phones have them for installed apps only
	}

	return {
		draw(state) {
			if (!bar.isConnected) return;
			const wants = bar.getAttribute("outside") ?? "";
			const over = !!bar.job?.finished_at || /gone|forbidden/.test(state);
			const may = "Notification" in window && Notification.permission != "denied";
			button.hidden = over || !may || !wants.includes("notify");
			button.textContent = bar.words.say(button.ariaPressed == "true" ? "notifying" : "notify");
			if (over && live) ended(state);
			live = over ? "" : bar.job?.id;
			shown.set(bar, { wants, over, ratio: bar.job?.progress.ratio, draw: () => bar.draw() });
			show(bar.words, getComputedStyle(ui.fill).backgroundColor);
		},
		close() {
			shown.delete(bar);
			show(bar.words, "");
		},
	};
}
