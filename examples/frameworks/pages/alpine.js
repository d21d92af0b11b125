document.addEventListener("alpine:init", () => {
	Alpine.data("bakery", () => ({
		jobs: [],
		done: 0,
		shown: true,
		careful: false,
		async bake({ target }) {
			const headers = { Accept: "application/json" };
			const answer = await fetch("/bake", { method: "POST", body: new FormData(target), headers });
			this.jobs.push(await answer.json());
		},
		ask(event) {
			if (this.careful && !confirm("Stop baking?")) event.preventDefault();
		},
	}));
});
