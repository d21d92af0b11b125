/** How a bar looks in a line of text, and as a ring. */
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host([variant]){container-type:normal}
:is(.inline,.ring) :is(#meta,#elapsed,#eta,#more,.more){display:none}
:host([variant=inline]){display:inline-block;inline-size:26rem;max-inline-size:100%;vertical-align:middle}
.inline{display:flex;gap:.5em;align-items:center;min-block-size:24px}
.inline :is(#head,#title,#foot,#say,#facts){display:contents}
.inline #icon{order:-1;inline-size:.875em}
.inline #label{flex:0 1 auto;margin:0;font-weight:inherit}
.inline #bar{flex:1 1 4rem;min-inline-size:4rem;order:1}
.inline :is(#percent,#note){order:2;flex:0 1 auto;white-space:nowrap}
.inline :is(button,a,#actions){order:3}
.inline:not(.running,.indeterminate,.finishing) #percent,.inline:is(.running,.indeterminate,.finishing) #note{display:none}
.ring{--_ring:var(--headway-size,4rem);--_size:var(--headway-height,.4rem);display:grid;grid-template:auto auto/auto minmax(0,1fr);column-gap:1em;align-content:center}
.ring #bar{grid-area:1/1/3;align-self:center;inline-size:var(--_ring);block-size:var(--_ring);border:0;border-radius:50%;background:conic-gradient(var(--_color) calc(var(--headway-ratio)*1turn),var(--_track) 0);mask:radial-gradient(closest-side,#0000 calc(100% - var(--_size) - .5px),#000 calc(100% - var(--_size)));transition:--headway-ratio var(--_glide)}
.ring #fill{display:none}
.ring :is(#head,#foot){min-block-size:1.75em}
.ring #head{align-self:end}
.ring #foot{align-items:start}
.ring #percent,.ring:is(.succeeded,.failed,.cancelled,.gone,.forbidden,.queued,.retrying,.indeterminate) #icon{position:absolute;inset-block-start:50%;inset-inline-start:0;inline-size:var(--_ring);block-size:1.5rem;translate:0 -50%}
.ring #percent{text-align:center;font-size:.9em;line-height:1.5rem;font-weight:600}
.ring:is(.succeeded,.failed,.cancelled,.gone,.forbidden,.queued,.retrying) #percent{display:none}
.ring:is(.reconnecting,.offline) #bar{opacity:.5}
.ring.indeterminate #bar{--headway-ratio:.25!important;animation:turn 1.6s linear infinite}
@keyframes turn{to{rotate:1turn}}
@media (prefers-reduced-motion){.ring #bar{transition:none}.ring.indeterminate #bar{animation:none}}
@media (forced-colors:active){.ring #bar{forced-color-adjust:none;--_color:Highlight;--_track:color-mix(in srgb,CanvasText 25%,Canvas)}}
`);
try {
	// So that a ring can move as smoothly as a bar.
	CSS.registerProperty({ name: "--headway-ratio", syntax: "<number>", inherits: true, initialValue: "0" });
} catch {} // a second copy of this file

export function create(bar) {
	bar.shadowRoot.adoptedStyleSheets.push(sheet);
	return { draw() {} };
}
