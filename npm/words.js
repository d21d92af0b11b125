/** Texts, numbers and times, in the language of the page. */

/** The texts, by key: with {values}, or by plural form ({one, other}, of the value n), or a function of the values. */
export const texts = {
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
	count: "{done} {unit}",
	units: {},
	unit: ({ unit, n }) =>
		n == 1 || /[A-Zs%]$/.test(unit) ? unit : unit.replace(/([^aeiou])y$/, "$1ie").replace(/(x|ch|sh)$/, "$1e") + "s",
	eta: "about {time} left",
	soon: "a few seconds left",
	cancel: "Cancel",
	retry: "Try again",
	result: "Open result",
	refused: "That did not work: {why}",
};

const made = new Map();

/** Formatters are dear to make. */
function make(kind, lang, options = {}) {
	const key = kind + lang + JSON.stringify(options);
	if (!made.has(key)) made.set(key, new Intl[kind](lang, options));
	return made.get(key);
}

export const join = (...parts) => parts.filter(Boolean).join(" · ");

/** What one element says: its own `strings` come first. */
export class Words {
	#host;
	constructor(host) {
		this.#host = host;
	}

	/** Of numbers: that of the element's own texts, else of the page. */
	get lang() {
		const lang = this.#host.strings.lang ?? this.#host.closest("[lang]")?.lang;
		try {
			return `${make("Locale", lang || texts.lang)}`;
		} catch {
			return texts.lang; // no such language
		}
	}

	#text(key) {
		return this.#host.strings[key] ?? texts[key] ?? key;
	}

	#fill(text, values) {
		if (typeof text == "function") return text(values);
		if (typeof text == "object") text = text[make("PluralRules", this.#text("lang")).select(values.n)] ?? text.other;
		return text.replace(/{(\w+)}/g, (_, name) => values[name] ?? "").trim();
	}

	say(key, values = {}) {
		return this.#fill(this.#text(key), values);
	}

	number(value, options) {
		return make("NumberFormat", this.lang, options).format(value);
	}

	/** Rounds down: 100 % is for the end. */
	percent(ratio) {
		return ratio == null ? "" : this.number(Math.floor(ratio * 100 + 1e-9) / 100, { style: "percent" });
	}

	counts({ done = 0, total, unit }) {
		if (total == null && !(done && unit)) return "";
		const n = total ?? done;
		const units = this.#text("units");
		const forms = Object.hasOwn(units, unit) && units[unit];
		const named = forms ? this.#fill(forms, { n }) : unit && this.say("unit", { unit, n });
		const values = { done: this.number(done), total: total != null && this.number(total), unit: named, n };
		return this.say(total == null ? "count" : "counts", values);
	}

	/** In words, rounded; seconds to *step*. */
	time(seconds, step) {
		const sizes = { day: 86400, hour: 3600, minute: 60, second: 1 };
		const [unit, size] = Object.entries(sizes).find(([, size]) => seconds > size * 1.5) ?? ["second", 1];
		const count = size > 1 ? Math.round(seconds / size) : Math.ceil(seconds / step) * step;
		return make("NumberFormat", this.#text("lang"), { style: "unit", unit, unitDisplay: "long" }).format(count);
	}

	/** In digits, as on a clock. */
	clock(seconds) {
		const parts = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor).slice(seconds < 3600 ? 1 : 0);
		return parts.map((n, at) => this.number(n, { minimumIntegerDigits: at ? 2 : 1 })).join(":");
	}
}
