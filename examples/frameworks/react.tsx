import "headway-progress";
import type { HeadwayEventMap, Job } from "headway-progress";
import { useState } from "react";
import { createRoot } from "react-dom/client";

function Bakery() {
	const [jobs, setJobs] = useState<Job[]>([]);
	const [done, setDone] = useState(0);
	const [shown, setShown] = useState(true);
	const [careful, setCareful] = useState(false);

	async function bake(form: FormData) {
		const headers = { Accept: "application/json" };
		const answer = await fetch("/bake", { method: "POST", body: form, headers });
		const job: Job = await answer.json();
		setJobs((jobs) => [...jobs, job]);
	}

	function ask(event: HeadwayEventMap["headway-before-cancel"]) {
		if (careful && !confirm("Stop baking?")) event.preventDefault();
	}

	const bars = jobs.map((job) => (
		<headway-bar
			key={job.id}
			src={job.links.self}
			job={job}
			onheadway-done={() => setDone((n) => n + 1)}
			onheadway-before-cancel={ask}
		/>
	));
	return (
		<>
			<form action={bake}>
				<input name="loaves" defaultValue="20" />
				<button>Bake</button>
				<button type="button" onClick={() => setJobs(jobs.toReversed())}>Turn round</button>
				<label><input type="checkbox" checked={shown} onChange={() => setShown(!shown)} />Show</label>
				<label>
					<input type="checkbox" checked={careful} onChange={() => setCareful(!careful)} />
					Ask before it is cancelled
				</label>
			</form>
			{shown && bars}
			<p>{done} done</p>
		</>
	);
}

createRoot(document.getElementById("app")!).render(<Bakery />);
