/**
 * Starts work without leaving the page, and adds what it left behind once it is done. Whatever is
 * shown is taken from the page itself, as the server renders it; without this script, the forms
 * do the same by reloading.
 */
const LONGEST = 8;
const jobs = document.querySelector("#jobs");
const problem = document.querySelector("#problem");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The entry of a job in the page as it would be after a reload. */
async function fresh(id) {
	const response = await fetch("/", { headers: { Accept: "text/html" } });
	if (!response.ok) throw new Error(`status ${response.status}`);
	const page = new DOMParser().parseFromString(await response.text(), "text/html");
	return page.getElementById(`job-${id}`);
}

async function start(form) {
	const response = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
	if (!response.ok) throw new Error(`status ${response.status}`);
	const { id } = await response.json();
	const shown = () => document.getElementById(`job-${id}`);
	const entry = shown() ?? (await fresh(id));
	show(shown() ?? add(entry)); // a double click waits twice for the same one
}

function add(entry) {
	jobs.prepend(entry);
	while (jobs.children.length > LONGEST) jobs.lastElementChild.remove();
	return entry;
}

function show(entry) {
	entry.classList.add("called");
	entry.addEventListener("animationend", () => entry.classList.remove("called"), { once: true });
	entry.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
}

/** Adds the outcome of a job. After a retry, the entry has become that of another job. */
async function complete(entry, job) {
	entry.id = `job-${job.id}`;
	if (job.state !== "succeeded" || entry.querySelector(".outcome")) return;
	const outcome = (await fresh(job.id))?.querySelector(".outcome");
	if (outcome) entry.append(outcome);
}

document.addEventListener("submit", async (event) => {
	if (!event.target.matches(".start")) return;
	event.preventDefault();
	const button = event.target.querySelector("button");
	button.ariaBusy = "true";
	problem.textContent = "";
	try {
		await start(event.target);
	} catch (error) {
		problem.textContent = `This could not be started (${error.message}). Try again in a moment.`;
	} finally {
		button.ariaBusy = null;
	}
});

jobs.addEventListener("headway-done", ({ target, detail }) => {
	complete(target.closest("li"), detail).catch(() => {}); // a reload shows it
});
