// Without this the page is whole, only as old as it was loaded. With it, it is loaded anew every two seconds, and what
// stands in it is put in place of what stood there.
(() => {
	"use strict";
	const at = id => document.getElementById(id);
	const on = at("on"), lost = at("lost"), said = at("said");
	const parts = ["caches", "now", "foot"];
	const needs = () => [...document.querySelectorAll(".needs .alarm")].map(e => [...e.children].map(c => c.textContent).join(" ")).join("; ");
	const counts = () => [...document.querySelectorAll(".needs .alarm dd:not(.sub)")].map(e => e.textContent).join(" ");
	let last = new Date(), before = counts(), busy = false;
	const url = new URL(location.href);
	url.searchParams.set("format", "part"); // without the style and the script, whose nonces are not this page's
	at("live").hidden = false;

	async function load() {
		if (busy || !on.checked || document.hidden || !getSelection().isCollapsed) return;
		busy = true;
		try {
			const answer = await fetch(url, {cache: "no-store", signal: AbortSignal.timeout(30000)});
			if (!answer.ok) throw new Error("it answered " + answer.status);
			if (!answer.headers.get("Content-Type").startsWith("text/html")) throw new Error("it answered something else");
			const page = new DOMParser().parseFromString(await answer.text(), "text/html");
			if (!parts.every(id => page.getElementById(id))) throw new Error("it answered another page");
			if (!on.checked || !getSelection().isCollapsed) return;
			const href = document.activeElement.getAttribute("href"); // of a link, to stay there
			const within = parts.map(at).find(part => part.contains(document.activeElement));
			for (const id of parts) at(id).replaceChildren(...page.getElementById(id).childNodes);
			if (within && href) [...within.querySelectorAll("a")].find(a => a.getAttribute("href") === href)?.focus({preventScroll: true});
			last = new Date();
			lost.hidden = true;
			if (counts() !== before) said.textContent = needs() || "Nothing needs anybody.";
			before = counts();
		} catch (why) {
			const text = "Not live: no answer since " + last.toISOString().slice(0, 19).replace("T", " ") + "Z (" + why.message + ").";
			if (lost.textContent !== text) lost.textContent = text;
			lost.hidden = false;
		} finally {
			busy = false;
		}
	}
	setInterval(load, 2000);
})();
