/** Types of `headway.js`. What each thing does stands in docs/element.md. */

export type JobState = "queued" | "running" | "succeeded" | "failed" | "cancelled";
export type Connection = "connecting" | "open" | "reconnecting" | "offline" | "gone" | "forbidden";
/** What a bar shows, in one word. */
export type BarState =
	| JobState
	| Exclude<Connection, "open">
	| "indeterminate"
	| "finishing"
	| "stalled"
	| "retrying"
	| "cancelling";

/** A stage; what is left out is 0 or unknown. */
export interface Stage {
	name: string;
	done?: number;
	total?: number | null;
	/** 0 to 1; 1 if it is closed; null or left out while nobody knows. */
	ratio?: number | null;
	unit?: string | null;
	depth?: number;
}

/** The status document: see docs/http.md. Fields may be added. */
export interface Job {
	id: string;
	task: string;
	title: string;
	state: JobState;
	rev: number;
	attempt: number;
	max_attempts: number;
	progress: {
		done: number;
		total: number | null;
		ratio: number | null;
		unit: string | null;
		rate_per_s: number | null;
		stages: Stage[];
	};
	note: string | null;
	eta_s: number | null;
	stalled: boolean;
	cancel_requested: boolean;
	resumed_ratio: number | null;
	retry_at: string | null;
	created_at: string;
	started_at: string | null;
	updated_at: string;
	finished_at: string | null;
	expires_at: string | null;
	error: { code: string; title: string; detail?: string | null } | null;
	result: unknown;
	links: {
		self: string;
		events: string;
		log: string;
		cancel: string | null;
		result: string | null;
		retry: string | null;
	};
}

/** Fired by a JobWatcher. */
export interface JobWatcherEventMap {
	update: CustomEvent<Job>;
	connection: CustomEvent<{ state: Connection }>;
}

/** Follows one job on its page's connection, and draws nothing. */
export class JobWatcher extends EventTarget {
	/** Makes every request of the page; replace it to add headers. */
	static fetch: (url: string | URL, init?: RequestInit) => Promise<Response>;
	constructor(src: string | URL);
	readonly src: string;
	readonly id: string;
	readonly job: Job | undefined;
	readonly connection: Connection;
	readonly state: BarState;
	/** The server's time, in milliseconds. */
	readonly now: number;
	/** Takes a status document, if it is news. */
	take(job: Job | undefined): void;
	/** Resolves to what the server answers; an Error has the title of its problem. */
	ask(method: string, url?: string): Promise<any>;
	cancel(): Promise<void>;
	/** Resolves to the new job. */
	retry(): Promise<Job>;
	reconnect(): void;
	close(): void;
	addEventListener<K extends keyof JobWatcherEventMap>(
		type: K,
		listener: (event: JobWatcherEventMap[K]) => void,
		options?: boolean | AddEventListenerOptions,
	): void;
	addEventListener(
		type: string,
		listener: EventListenerOrEventListenerObject | null,
		options?: boolean | AddEventListenerOptions,
	): void;
}

/** With {values}; or by plural form of the value n; or a function of the values. */
export type Text =
	| string
	| Partial<Record<Intl.LDMLPluralRule, string>>
	| ((values: Record<string, any>) => string);
/** Keys: see docs/element.md. `units` has the forms of units by their singular. */
export interface Strings {
	lang?: string;
	units?: Record<string, Text>;
	[key: string]: Text | Record<string, Text> | undefined;
}

/** Fired by `<headway-bar>`; they bubble, and leave shadow trees. */
export interface HeadwayEventMap {
	"headway-update": CustomEvent<Job>;
	"headway-succeeded": CustomEvent<Job>;
	"headway-failed": CustomEvent<Job>;
	"headway-cancelled": CustomEvent<Job>;
	"headway-done": CustomEvent<Job>;
	"headway-connection": CustomEvent<{ state: Connection }>;
	/** Cancelable: then nothing is sent. */
	"headway-before-cancel": CustomEvent<Job>;
	/** With the new job. Cancelable: then the bar goes on showing the old one. */
	"headway-retry": CustomEvent<Job>;
}

/** `<headway-bar>` */
export class HeadwayBar extends HTMLElement {
	/** Texts of all bars, to be overridden. */
	static strings: Strings;
	/** Texts of this one. */
	strings: Strings;
	src: string;
	/** The last status document; set it before the bar is in a page, for its first paint. */
	job: Job | undefined;
	readonly watcher: JobWatcher | undefined;
	cancel(): Promise<void>;
	retry(): Promise<void>;
	reconnect(): void;
	addEventListener<K extends keyof HeadwayEventMap>(
		type: K,
		listener: (this: HeadwayBar, event: HeadwayEventMap[K]) => void,
		options?: boolean | AddEventListenerOptions,
	): void;
	addEventListener<K extends keyof HTMLElementEventMap>(
		type: K,
		listener: (this: HeadwayBar, event: HTMLElementEventMap[K]) => void,
		options?: boolean | AddEventListenerOptions,
	): void;
	addEventListener(
		type: string,
		listener: EventListenerOrEventListenerObject | null,
		options?: boolean | AddEventListenerOptions,
	): void;
}

/** `<headway-jobs>` */
export class HeadwayJobs extends HTMLElement {
	/** Texts of this list and its bars. */
	strings: Strings;
	/** Asks the server what is new. */
	refresh(): Promise<void>;
}

interface CommonAttributes {
	src?: string;
	nocancel?: boolean | "";
	log?: boolean | "";
	variant?: "inline" | "ring";
	/** Some of: title icon notify */
	outside?: string;
	children?: any;
	class?: string;
	className?: string;
	id?: string;
	key?: any;
	lang?: string;
	ref?: any;
	slot?: string;
	style?: any;
	[data: `data-${string}`]: any;
}

export interface HeadwayBarAttributes extends CommonAttributes {
	src: string;
	label?: string;
	immediate?: boolean | "";
	/** As properties, where a framework sets them so. */
	job?: Job;
	strings?: Strings;
	"onheadway-update"?: (event: HeadwayEventMap["headway-update"]) => void;
	"onheadway-succeeded"?: (event: HeadwayEventMap["headway-succeeded"]) => void;
	"onheadway-failed"?: (event: HeadwayEventMap["headway-failed"]) => void;
	"onheadway-cancelled"?: (event: HeadwayEventMap["headway-cancelled"]) => void;
	"onheadway-done"?: (event: HeadwayEventMap["headway-done"]) => void;
	"onheadway-connection"?: (event: HeadwayEventMap["headway-connection"]) => void;
	"onheadway-before-cancel"?: (event: HeadwayEventMap["headway-before-cancel"]) => void;
	"onheadway-retry"?: (event: HeadwayEventMap["headway-retry"]) => void;
}

export interface HeadwayJobsAttributes extends CommonAttributes {
	nolinks?: boolean | "";
	strings?: Strings;
}

interface HeadwayElements {
	"headway-bar": HeadwayBarAttributes;
	"headway-jobs": HeadwayJobsAttributes;
}

declare global {
	interface HTMLElementTagNameMap {
		"headway-bar": HeadwayBar;
		"headway-jobs": HeadwayJobs;
	}
	interface DocumentEventMap extends HeadwayEventMap {
		/** Fire it where the page has started a job that no bar shows: lists look for it. */
		"headway-started": Event;
	}
	namespace JSX {
		interface IntrinsicElements extends HeadwayElements {}
	}
}

// @ts-ignore where there is no React, there is nothing to add to
declare module "react" {
	namespace JSX {
		interface IntrinsicElements extends HeadwayElements {}
	}
}
