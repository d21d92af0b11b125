/** The one file that a page includes: `<headway-bar>`, and `<headway-jobs>`. See docs/element.md. */
import { HeadwayBar } from "./bar.js";
import { announce, isOver, JobWatcher } from "./watcher.js";
import { join, Words } from "./words.js";
export { HeadwayBar } from "./bar.js";
export { JobWatcher } from "./watcher.js";

/** The visitor's own jobs, live. Most pages have no such list: what it needs comes where there is one. */
export class HeadwayJobs extends HTMLElement {
	/** @type {any} texts; also if a script set them before this module came */
	strings = this.strings ?? {};
	#list;

	async connectedCallback() {
		this.#list ??= import("./jobs.js").then(({ createList }) =>
			createList(this, { announce, HeadwayBar, isOver, JobWatcher, join, Words }),
		);
		(await this.#list).open();
	}

	disconnectedCallback() {
		this.#list.then((list) => list.close());
	}

	/** Asks the server what is new. */
	async refresh() {
		(await this.#list)?.refresh();
	}
}

if (!customElements.get("headway-bar")) customElements.define("headway-bar", HeadwayBar);
if (!customElements.get("headway-jobs")) customElements.define("headway-jobs", HeadwayJobs);
