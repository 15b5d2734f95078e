// What the page promises to people, in a browser. See run.
import {test, before, after} from "node:test";
import assert from "node:assert/strict";
import {spawn} from "node:child_process";
import {once} from "node:events";
import {readFileSync} from "node:fs";
import {createServer} from "node:http";
import {createRequire} from "node:module";
import {chromium} from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const sizes = {phone: {width: 390, height: 844}, tablet: {width: 768, height: 1024}, wide: {width: 1280, height: 900}};
let server, origin, browser;

before(async () => {
	server = spawn(process.env.SERVE, {stdio: ["pipe", "pipe", "inherit"]});
	const [line] = await once(server.stdout, "data");
	origin = String(line).trim();
	const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
	browser = await chromium.launch({executablePath: process.env.CHROMIUM, args});
});
after(async () => {
	await browser?.close();
	server?.stdin.end(); // that ends it
});

// open returns a page of its own, and fails the test if the browser complains about anything but what is expected.
async function open(t, path, {size = "wide", scheme = "light", js = true, expect = []} = {}) {
	const context = await browser.newContext({viewport: sizes[size], colorScheme: scheme, javaScriptEnabled: js});
	const page = await context.newPage();
	const complaints = [];
	page.on("console", m => ["error", "warning"].includes(m.type()) && complaints.push(m.text()));
	page.on("pageerror", e => complaints.push(String(e)));
	page.on("request", r => r.url().startsWith(origin) || complaints.push("a request to " + r.url()));
	t.after(async () => {
		await context.close();
		assert.deepEqual(complaints.filter(c => !expect.some(e => c.includes(e))), [], "complaints of the browser");
	});
	await page.goto(origin + path);
	return page;
}

const control = what => fetch(origin + "/control", {method: "POST", body: new URLSearchParams(what)}).then(r => r.text());
const hold = (id, error = "the bank did not answer") => control({do: "hold", scope: "tess", id, error});
const state = id => control({do: "state", scope: "tess", id});

// lookUp types a key and presses Enter.
async function lookUp(page, key) {
	await page.getByLabel("The whole key").fill(key);
	await page.keyboard.press("Enter");
	await page.getByRole("heading", {name: "One key", exact: true}).waitFor();
}

// fits asserts that nothing sticks out to the side, and that no duration is broken into two lines.
async function fits(page) {
	assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no scrolling to the side");
	const broken = await page.evaluate(() => [...document.querySelectorAll(".time")].filter(e => e.getClientRects().length > 1).map(e => e.textContent));
	assert.deepEqual(broken, [], "durations in one line");
	const out = await page.evaluate(() => [...document.querySelectorAll("main *")].filter(e => !e.closest(".unseen, thead") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)));
	assert.deepEqual(out, [], "all within the window");
}

// accessible asserts that axe finds nothing.
async function accessible(page, where) {
	await page.evaluate(axe); // by the debugger: the page's own policy refuses scripts that are added to it
	const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
	const {violations} = await page.evaluate(tags => window.axe.run(document, {runOnly: tags}), tags);
	assert.deepEqual(violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))]), [], where);
}

// tabTo presses Tab until a link, button or field of that name has the focus, and returns what had it on the way.
async function tabTo(page, name) {
	const seen = [];
	for (let i = 0; i < 80; i++) {
		await page.keyboard.press("Tab");
		const now = await page.evaluate(() => {
			const e = document.activeElement, s = getComputedStyle(e);
			const name = e === document.body ? "" : (e.labels?.[0] ?? e).textContent.trim();
			return {name, outlined: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2};
		});
		if (now.name === "") continue; // the browser's own, between the end and the beginning
		assert.ok(now.outlined, `the focus is to be seen on ${now.name}`);
		seen.push(now.name);
		if (now.name.startsWith(name)) return seen;
	}
	assert.fail(`${name} is not reached by Tab: ${seen}`);
}

if (process.env.PICTURES) {
	test("pictures", async t => { // first, while the data is as it was
		for (const [name, path, size, scheme] of [
			["page-light", "/page", "wide", "light"], ["page-dark", "/page?cache=refunds", "wide", "dark"], ["page-phone", "/page", "phone", "dark"],
		]) {
			const page = await open(t, path, {size, scheme});
			await page.waitForTimeout(6000); // so that there are rates
			await page.screenshot({path: `${process.env.PICTURES}/${name}.png`, ...(size === "wide" && {fullPage: true})});
		}
	});
}

// visit calls check at each kind of page.
async function visit(page, check) {
	for (const path of ["/page", "/page?cache=refunds", "/readonly", "/quiet", "/hostile"]) {
		await page.goto(origin + path);
		await check(page, path);
	}
	await page.goto(origin + "/hostile");
	for (const link of await page.locator("a.key").evaluateAll(all => all.slice(-2).map(a => a.href))) {
		for (const ask of ["", "ask-again", "took-place", "did-not", "forget"]) {
			await page.goto(link + (ask && "&ask=" + ask));
			await check(page, ask || "one key");
		}
	}
}

for (const size of Object.keys(sizes)) {
	test(`all fits: ${size}`, async t => visit(await open(t, "/page", {size}), fits));
}
for (const [size, scheme] of [["phone", "dark"], ["wide", "light"]]) {
	test(`axe finds nothing: ${size}, ${scheme}`, async t => visit(await open(t, "/page", {size, scheme}), accessible));
}
test("axe finds nothing in the other colours", async t => {
	for (const [size, scheme] of [["phone", "light"], ["wide", "dark"]]) {
		const page = await open(t, "/page", {size, scheme});
		await accessible(page, scheme);
		await page.locator("a.key").first().click();
		await page.getByRole("link", {name: "Forget"}).click();
		await page.getByRole("button", {name: "Forget"}).waitFor();
		await accessible(page, "forget, " + scheme);
	}
});

test("messages, too, are accessible", async t => {
	for (const scheme of ["light", "dark"]) {
		const page = await open(t, "/page?cache=nothing", {scheme, size: "phone", expect: ["404"]});
		await page.getByRole("alert").filter({hasText: "no cache of this name"}).waitFor();
		await accessible(page, "404");
		await page.goto(origin + "/page");
		await page.getByLabel("The whole key").fill("nobody/nothing");
		await page.getByRole("button", {name: "Look up"}).click();
		await page.getByRole("status").filter({hasText: "Nothing is known"}).waitFor();
		await accessible(page, "nothing found");
	}
});

test("what is not listed is counted", async t => {
	const page = await open(t, "/many");
	assert.equal(await page.locator("tbody").first().getByRole("row").count(), 100);
	await page.getByText("The 100 oldest keys are listed, held and in flight together; 150 more are not.").waitFor();
	await fits(page);
});

test("a phone shows the label of every cell, a wide window that of every column", async t => {
	const phone = await open(t, "/page", {size: "phone"});
	const cells = await phone.locator("table:not(.calls) :is(tbody th, td)").evaluateAll(all => all.map(cell => {
		const label = cell.querySelector(".label"), box = label.getBoundingClientRect(), text = cell.querySelector(".cell").getBoundingClientRect();
		const column = cell.closest("table").querySelectorAll("thead th")[cell.cellIndex].textContent;
		return {column, label: label.innerText, seen: box.width > 20 && box.height > 10 && box.right <= text.left && text.width > 5};
	}));
	assert.ok(cells.length >= 20, "cells");
	for (const c of cells) assert.deepEqual(c, {column: c.column, label: c.column, seen: true});
	const wide = await open(t, "/page");
	assert.equal(await wide.locator(".label:visible").count(), 0, "labels of cells in a wide window");
	for (const h of await wide.locator("thead th").all()) assert.ok(await h.isVisible());
});

test("without JavaScript: look up, ask, act", async t => {
	await hold("booked-1");
	const page = await open(t, "/page", {js: false});
	assert.equal(await page.getByText("live", {exact: true}).isVisible(), false, "it is not live and does not say so");
	await lookUp(page, "tess/booked-1");
	await page.getByRole("link", {name: "Ask again"}).click();
	await page.getByText("Logged as done by nora").waitFor();
	await page.getByRole("button", {name: "Ask again"}).click();
	await page.getByRole("status").filter({hasText: "Done, and logged."}).waitFor();
	assert.equal(await state("booked-1"), "retained receipt 7 <nil>");
});

test("by keyboard alone", async t => {
	await hold("by-keyboard");
	const page = await open(t, "/page");
	assert.match((await tabTo(page, "The whole key"))[0], /^Skip to the content/);
	await page.keyboard.type("tess/by-keyboard");
	await page.keyboard.press("Enter");
	await page.getByRole("heading", {name: "One key", exact: true}).waitFor();
	await tabTo(page, "It took place");
	await page.keyboard.press("Enter");
	await page.getByRole("button", {name: "It took place"}).waitFor();
	await tabTo(page, "The value that callers get");
	await page.keyboard.type("receipt 8");
	await tabTo(page, "It took place");
	await page.keyboard.press("Enter");
	await page.getByRole("status").filter({hasText: "Done, and logged."}).waitFor();
	assert.equal(await state("by-keyboard"), "retained receipt 8 <nil>");
});

test("each action does what it says", async t => {
	for (const [id, name, text, becomes] of [
		["never-1", "Ask again", "", "absent  <nil>"],
		["other-1", "Ask again", "", "held  the bank did not answer"],
		["refused-1", "Refused for good", "no such account", "retained  no such account"],
		["not-1", "It certainly did not", "", "absent  <nil>"],
		["forget-1", "Forget", "", "absent  <nil>"],
	]) {
		await hold(id);
		const page = await open(t, "/page");
		await lookUp(page, "tess/" + id);
		await page.getByRole("link", {name}).click();
		if (text) await page.getByRole("textbox").fill(text);
		await page.getByRole("button", {name}).click();
		await page.getByRole("status").first().waitFor();
		assert.equal(await state(id), becomes, `${name} of ${id}`);
	}
});

test("what has changed meanwhile is left alone", async t => {
	await hold("changing");
	const page = await open(t, "/page", {expect: ["409"]});
	await lookUp(page, "tess/changing");
	await page.getByRole("link", {name: "It certainly did not"}).click();
	await page.getByRole("button", {name: "It certainly did not"}).waitFor();
	await control({do: "settle", scope: "tess", id: "changing"});
	const [answer] = await Promise.all([
		page.waitForResponse(r => r.request().method() === "POST"),
		page.getByRole("button", {name: "It certainly did not"}).click(),
	]);
	assert.equal(answer.status(), 409);
	await page.getByRole("alert").filter({hasText: "changed since you looked"}).waitFor();
	await accessible(page, "409");
	assert.equal(await state("changing"), "retained settled elsewhere <nil>");
});

test("live: what is new comes by itself, and what one does stays", async t => {
	const page = await open(t, "/page");
	await page.getByLabel("The whole key").fill("half typ");
	await tabTo(page, "ann/");
	const focused = await page.evaluate(() => document.activeElement.href);
	await hold("comes-by-itself", "it is new");
	await page.getByRole("cell", {name: "it is new"}).waitFor({timeout: 10000});
	assert.equal(await page.evaluate(() => document.activeElement.href), focused, "the focus stays");
	assert.equal(await page.getByLabel("The whole key").inputValue(), "half typ", "what is typed stays");
	assert.match(await page.locator("#said").textContent(), /Held \d+/, "a screen reader is told");
	await page.getByLabel("live").uncheck();
	await hold("comes-not", "it is newer");
	await page.waitForTimeout(3500);
	assert.equal(await page.getByText("it is newer").count(), 0, "not live any more");
	await page.getByLabel("live").check();
	await page.getByRole("cell", {name: "it is newer"}).waitFor({timeout: 10000});
});

test("a page that is not live any more says so", async t => {
	const page = await open(t, "/page?cache=mails", {expect: ["502"]});
	await control({do: "down", is: "true"});
	await page.getByRole("alert").filter({hasText: /^Not live: no answer since 20/}).waitFor({timeout: 10000});
	await accessible(page, "not live");
	await control({do: "down", is: "false"});
	await page.getByRole("alert").waitFor({state: "hidden", timeout: 10000});
});

test("hostile keys and errors stay text", async t => {
	const page = await open(t, "/hostile");
	page.on("dialog", () => assert.fail("a dialog"));
	const seen = await page.locator("main").innerText();
	for (const text of ['<script>document.title="hacked"</script>', '"><img src=x onerror=', "\\u202e", "\\x00\\xff", "{{.}}</textarea></title>"]) {
		assert.ok(seen.includes(text), `${text} is to be seen as it is`);
	}
	await page.waitForTimeout(2500); // once more, live
	assert.equal(await page.title(), '<b>host"ile</b> · idemflight');
	assert.equal(await page.locator("main img, main script, main b").count(), 0, "no markup of theirs");
	for (const link of await page.locator("a.key").evaluateAll(all => all.map(a => a.href))) {
		await page.goto(link + "&ask=forget");
		assert.match(await page.title(), /^Forget\?/);
		assert.equal(await page.locator("main img, main script, main b").count(), 0, "no markup of theirs");
	}
});

test("no key is in an address", async t => {
	await hold("secret-1");
	const page = await open(t, "/page");
	const addresses = [];
	page.on("request", r => addresses.push(r.url(), r.headers().referer ?? ""));
	await lookUp(page, "tess/secret-1");
	await page.getByRole("link", {name: "It certainly did not"}).click();
	await page.getByRole("button", {name: "It certainly did not"}).click();
	await page.getByRole("status").filter({hasText: "Done"}).waitFor();
	assert.ok(addresses.length >= 6, "requests");
	assert.deepEqual(addresses.filter(a => /secret|tess/.test(decodeURIComponent(a))), []);
});

test("another site can neither act nor frame the page", async t => {
	await hold("cross-site");
	const mine = await open(t, "/page");
	await lookUp(mine, "tess/cross-site");
	await mine.getByRole("link", {name: "It certainly did not"}).click();
	const form = await mine.locator("form").evaluate(f => [...new FormData(f)]); // as if it could be guessed
	const fields = form.map(([name, value]) => `<input name="${name}" value="${value}">`).join("");
	const evil = createServer((_, w) => {
		w.setHeader("Content-Type", "text/html");
		w.end(`<form method="post" action="${origin}/page">${fields}<button>Win</button></form><iframe src="${origin}/page"></iframe>`);
	});
	await once(evil.listen(0, "127.0.0.1"), "listening");
	t.after(() => { evil.closeAllConnections(); evil.close(); });
	const context = await browser.newContext();
	t.after(() => context.close());
	const theirs = await context.newPage();
	await theirs.goto(`http://localhost:${evil.address().port}/`);
	assert.equal(await theirs.frameLocator("iframe").getByText("idemflight").count(), 0, "not in a frame");
	const [answer] = await Promise.all([
		theirs.waitForResponse(r => r.request().method() === "POST"),
		theirs.getByRole("button").click(),
	]);
	assert.equal(answer.status(), 403);
	assert.match(await state("cross-site"), /^held/);
});
