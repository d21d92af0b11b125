import { createApp } from "/node_modules/vue/dist/vue.esm-browser.prod.js";

const app = createApp({
	data: () => ({ jobs: [], done: 0, shown: true, careful: false }),
	methods: {
		async bake({ target }) {
			const headers = { Accept: "application/json" };
			const answer = await fetch("/bake", { method: "POST", body: new FormData(target), headers });
			this.jobs.push(await answer.json());
		},
		ask(event) {
			if (this.careful && !confirm("Stop baking?")) event.preventDefault();
		},
	},
});
app.config.compilerOptions.isCustomElement = (tag) => tag.startsWith("headway-");
app.mount("#app");
