// The page of opencode-gateway, with a real program and real calls.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { LOOKS, clipboard, isSound, launch, open, row, rows } from "./browser.mjs";
import { Gateway } from "./gateway.mjs";
import { Conversation, WRONG_KEY, agent, call, faults, openai, replies } from "./traffic.mjs";

const run = promisify(execFile);

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** Waits until a condition holds on the page. */
const until = (page, condition, argument) => page.waitForFunction(condition, argument);

/** Waits until a screen reader was told these words. */
const said = (page, words) =>
  until(page, (words) => window.said.some((said) => said.includes(words)), words);

const isFocused = (locator) => locator.evaluate((element) => element === document.activeElement);

for (const look of LOOKS) {
  describe(`at ${look.width} pixels, ${look.scheme}`, () => {
    let gateway, page, complaints, numbers, work;

    before(async () => {
      gateway = await Gateway.start("--reply", "Hello.", ...replies(40));
      ({ page, complaints } = await open(browser, gateway, look));
    });
    after(async () => {
      await page.context().close();
      await gateway.stop();
    });

    it("begins with the setup of each client to copy, and a command that makes a first call", async () => {
      await page.getByText("Waiting for the first call").waitFor();
      await isSound(page);
      const { setups, try: command } = await gateway.state();
      assert.ok(setups.length >= 10);
      const tabs = page.getByRole("tab");
      await tabs.first().focus();
      for (const { title, commands } of [...setups, { title: "curl", commands: command }]) {
        const tab = page.getByRole("tab", { name: title, exact: true, selected: true });
        assert.ok(await isFocused(tab), title);
        const panel = page.getByRole("tabpanel", { name: title, exact: true });
        assert.equal((await panel.locator("code").textContent()).trim(), commands.trim());
        await panel.getByRole("button", { name: "Copy the commands" }).click();
        assert.equal(await clipboard(page), commands);
        await tab.press("ArrowRight");
      }
      assert.ok(await isFocused(tabs.first()), "after the last comes the first");
      await tabs.first().press("ArrowLeft");
      await page.getByRole("tab", { name: "pi", exact: true }).click();
      await page.getByText("PI_CODING_AGENT_DIR").first().waitFor();
      await isSound(page);
      await page.getByRole("tab", { name: "curl" }).click();

      await run("sh", ["-c", `${command} --silent --fail --output /dev/null`]);
      await row(page, "calls", 1).waitFor();
      await page.getByText("Waiting for the first call").waitFor({ state: "hidden" });
      await page.getByText("Nothing stands out in 1 call.").waitFor();
    });

    it("shows a conversation with its calls, turns, subagent, cached share and cost", async () => {
      work = await agent(gateway, "Find out why the login test is flaky, and fix it.");
      const conversation = rows(page, "conversations")
        .filter({ hasText: "A flaky test" });
      await until(page, () => document.querySelectorAll("#conversations .nested").length === 1);
      // Three turns of two calls, and the title.
      await conversation.locator(".calls").getByText("7 calls").waitFor({ state: "attached" });
      assert.equal(await conversation.locator(".turns").textContent(), "3 turns");
      assert.match(await conversation.locator(".cached").textContent(), /^[1-9]\d %$/);
      const line = conversation.getByRole("img", { name: /^Cached share of the latest \d+ calls/ });
      assert.ok(await line.isVisible());

      const parent = rows(page, "conversations").locator("a");
      const links = await parent.evaluateAll((all) => all.map(({ hash }) => hash));
      const { conversations } = await gateway.state();
      const link = ({ session }) =>
        `#/conversation/${conversations.find((found) => found.session === session).id}`;
      const at = links.indexOf(link(work.conversation));
      assert.equal(links[at + 1], link(work.helper), "below its parent");
      for (const part of [".calls", ".turns", ".cached", ".cost", ".session"]) {
        assert.ok(await conversation.locator(part).isVisible(), part);
      }
      assert.match(await conversation.locator(".cost").textContent(), /^\$0\.0/);

      await conversation.click();
      const sheet = page.getByRole("dialog");
      await sheet.getByText("7 calls, 3 turns, 1 subagent").waitFor();
      await sheet.getByRole("button", { name: "Copy the session" }).click();
      assert.equal(await clipboard(page), work.conversation.session);
      assert.equal(await sheet.locator(".turn").count() >= 3, true);
      await isSound(page);
      await sheet.getByRole("link", { name: "Find every test that binds a port." }).click();
      await sheet.getByRole("button", { name: "Copy the parent" }).click();
      assert.equal(await clipboard(page), work.conversation.session);
      await page.keyboard.press("Escape");
      await sheet.waitFor({ state: "hidden" });
    });

    it("puts what stands out on top, with the reason in words", async () => {
      numbers = await faults(gateway);
      const reasons = {
        missed: [/^No session$/, "No session", 1],
        moved: [/^Moved: it continues #\d+, which was in session …\w{8}/, "Moved", 1],
        shared: [/^Shared: its session contains the conversation that began with #/, "Shared", 2],
        doubled: [/^The session header appears more than once$/, "Doubled or malformed", 2],
        malformed: [/^The session is not an id of 1 to 128 visible/, "Doubled or malformed", 2],
        refused: [/^Refused: 401 AuthError$/, "Refused", 2],
      };
      const isLong = (length) => until(page, (length) =>
        document.querySelectorAll("#standouts tbody tr").length === length, length);
      for (const [name, [words]] of Object.entries(reasons)) {
        const shown = row(page, "standouts", numbers[name]);
        await shown.waitFor();
        assert.match(await shown.locator("strong").textContent(), words);
      }
      const chip = (label) => page.locator(".chips").getByRole("button", { name: label });
      for (const [name, [, label, length]] of Object.entries(reasons)) {
        await chip(label).click();
        await row(page, "standouts", numbers[name]).waitFor();
        await isLong(length);
      }
      await chip("All").click();
      await isLong(7);
      await until(page, () => document.title === "(7) opencode-gateway");
      const places = await page.evaluate(() => ["standouts", "conversations", "calls"]
        .map((id) => document.getElementById(id).getBoundingClientRect().top));
      assert.deepEqual(places, places.toSorted((a, b) => a - b));
    });

    it("shows a call on a click: what it asked and was answered, and no key", async () => {
      await row(page, "standouts", numbers.missed).click();
      const sheet = page.getByRole("dialog", { name: `Call ${numbers.missed}` });
      await sheet.getByText("one id for the whole conversation").waitFor();
      for (const words of [
        "400 MissingSessionID", "kimi-k3", "Add a dark theme.", "no tools", "my-agent",
        "POST /zen/go/v1/chat/completions", "Generate a title for this conversation.",
      ]) {
        assert.ok(await sheet.getByText(words).first().isVisible(), words);
      }
      const hidden = sheet.locator(".headers dt", { hasText: "authorization" });
      assert.equal(await hidden.locator("+ dd").textContent(), "(hidden)");
      await isSound(page);
      await sheet.getByRole("button", { name: "Copy as JSON" }).click();
      const copied = JSON.parse(await clipboard(page));
      assert.equal(copied.number, numbers.missed);
      await page.getByRole("button", { name: "Close" }).click();

      await row(page, "standouts", numbers.refused).click();
      const refused = page.getByRole("dialog", { name: `Call ${numbers.refused}` });
      await refused.getByText("Refused: 401 AuthError").waitFor();
      assert.ok(!(await page.content()).includes(WRONG_KEY));
      await page.goBack();
      await refused.waitFor({ state: "hidden" });

      await row(page, "standouts", numbers.moved).click();
      const moved = page.getByRole("dialog", { name: `Call ${numbers.moved}` });
      await moved.getByText("Moved: it continues").waitFor();
      // Both calls prove it, each with its words.
      const proof = moved.locator(".proof blockquote");
      assert.deepEqual(await proof.allTextContents(), Array(2).fill(
        "The test waits for a fixed port. I let the system choose one."));
      for (const tool of ["read_file", "write_file", "run_tests"]) {
        assert.ok(await moved.locator(".tools").getByText(tool).isVisible());
      }
      const { session, turn } = await gateway.get(`/api/calls/${numbers.moved}`);
      for (const [name, id] of Object.entries({ session, turn })) {
        await moved.getByRole("button", { name: `Copy the ${name}` }).click();
        assert.equal(await clipboard(page), id);
      }
      await moved.getByRole("link", { name: "its conversation" }).click();
      const thread = page.getByRole("dialog", { name: "Refactor the parser" });
      await thread.getByText(/^turn 1, from call \d+, in/).waitFor();
      await thread.getByText(/^turn 2, from call \d+, in/).waitFor();
      await isSound(page);
      await page.keyboard.press("Escape");
      await thread.waitFor({ state: "hidden" });
      const moves = rows(page, "conversations").filter({ hasText: "Refactor the parser" });
      assert.match(await moves.locator(".moves").textContent(),
        /^turn 1 in …\w{8}, turn 2 in …\w{8}$/);
    });

    it("searches, and says where there is nothing", async () => {
      const search = page.getByRole("searchbox", { name: "Search" });
      await search.fill("flaky login");
      await until(page, () => document.querySelectorAll("#conversations tbody tr").length === 1);
      await page.getByText("No call that stands out matches “flaky login”.").waitFor();
      await search.fill(work.helper.session);
      await until(page, () => document.querySelectorAll("#calls tbody tr").length === 2);
      await search.fill("there is no such thing");
      for (const what of ["call that stands out", "conversation", "call"]) {
        const words = `No ${what} matches “there is no such thing”.`;
        await page.getByText(words, { exact: true }).waitFor();
      }
      await isSound(page);
      await said(page, "0 conversations and 0 calls match.");
      await search.fill("");
      await row(page, "calls", numbers.refused).waitFor();
    });

    it("is sound as a whole, and has said nothing in the console", async () => {
      await page.locator("#connect summary").click();
      await isSound(page);
      await page.locator("#connect summary").click();
      await isSound(page);
      const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const [light] = paper.match(/\d+/);
      assert.equal(Number(light) > 128, look.scheme === "light");
      for (const landmark of ["banner", "main", "search", "contentinfo"]) {
        assert.equal(await page.getByRole(landmark).count(), 1, landmark);
      }
      assert.deepEqual(complaints, []);
    });
  });
}

describe("the page", () => {
  let gateway;
  before(async () => { gateway = await Gateway.start(...replies(100)); });
  after(() => gateway.stop());

  it("shows what a client sends as text, whatever it looks like", async () => {
    const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>&lt;b&gt;`;
    const headers = {
      "x-opencode-session": `${evil}session`, "x-opencode-client": `${evil}client`,
      "x-opencode-request": `${evil}turn`, "x-opencode-project": `${evil}project`,
      "x-parent-session-id": "javascript:alert(3)", "user-agent": `${evil}agent`, "x-other": evil,
    };
    const body = {
      model: `${evil}model`,
      messages: [
        { role: "system", content: `${evil}system` }, { role: "user", content: `${evil}prompt` },
      ],
      tools: [{ type: "function", function: { name: `${evil}tool`, parameters: {} } }],
    };
    await call(gateway, { headers, body });
    await call(gateway, { body });
    const { calls: [{ number }] } = await gateway.state();
    for (const width of [1440, 390]) {
      const { page, complaints } = await open(browser, gateway, { width });
      await row(page, "calls", number).waitFor();
      await page.locator("#standouts").getByText(/<img src=x/).first().waitFor();
      await page.locator("#conversations").getByText(`${evil}prompt`).waitFor();
      for (const hash of [`#/call/${number - 1}`, `#/call/${number}`,
        `#/conversation/${number - 1}`]) {
        await page.evaluate((hash) => { location.hash = hash; }, hash);
        await page.getByRole("dialog").getByText(`${evil}prompt`).first().waitFor();
        await isSound(page);
      }
      const search = page.getByRole("searchbox");
      await page.keyboard.press("Escape");
      await search.fill(`${evil}nothing`);
      await page.getByText(`No conversation matches “${evil}nothing”.`).waitFor();
      assert.equal(await page.locator("img, script:not([src='/page.js']), b").count(), 0);
      assert.equal(await page.locator("a[href^='javascript']").count(), 0);
      assert.deepEqual(complaints, []);
      await page.context().close();
    }
  });

  it("takes no word of another origin, and lets none read it", async () => {
    const answer = await fetch(`${gateway.origin}/`);
    assert.match(answer.headers.get("content-security-policy"), /default-src 'self'/);
    assert.equal(answer.headers.get("access-control-allow-origin"), null);
    const html = await answer.text();
    assert.doesNotMatch(html, /<style|style=|<script>| on\w+=/);
  });

  it("is used with the keyboard alone, and keeps the focus while calls come", async () => {
    const { page, complaints } = await open(browser, gateway, { width: 1440 });
    for (let calls = 0; calls < 3; calls += 1) {
      await new Conversation(gateway).ask("Which port does the test take?");
    }
    const { calls: [{ number }] } = await gateway.state();
    await row(page, "calls", number).waitFor();

    await page.keyboard.press("/");
    assert.ok(await isFocused(page.getByRole("searchbox")));
    await page.keyboard.type("port");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByRole("searchbox").inputValue(), "");

    // From the search, Tab leads to each list once, and the arrow keys to its other rows.
    const reached = [];
    for (let tabs = 0; tabs < 20 && reached.length < 3; tabs += 1) {
      await page.keyboard.press("Tab");
      const section = await page.evaluate(() =>
        document.activeElement.closest("tbody") && document.activeElement.closest("section").id);
      if (section) reached.push(section);
    }
    assert.deepEqual(reached, ["standouts", "conversations", "calls"]);

    const link = (number) => page.locator(`#calls a[href="#/call/${number}"]`);
    await link(number).focus();
    await page.keyboard.press("ArrowDown");
    assert.ok(await isFocused(link(number - 1)));
    await page.keyboard.press("Enter");
    const sheet = page.getByRole("dialog", { name: `Call ${number - 1}` });
    await sheet.waitFor();
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "hidden" });
    assert.ok(await isFocused(link(number - 1)), "the focus comes back to the row");

    // More calls arrive than the list has rows, while a row has the focus.
    const conversation = page.locator("#conversations tbody a").last();
    await conversation.focus();
    const href = await conversation.getAttribute("href");
    for (let calls = 0; calls < 60; calls += 1) {
      await call(gateway, { headers: { "x-opencode-session": `session-${calls}` } });
    }
    const last = (await gateway.state()).totals.calls;
    await row(page, "calls", last).waitFor();
    const focused = await page.evaluate(() => document.activeElement.getAttribute("href"));
    assert.equal(focused, href);
    assert.deepEqual(complaints, []);
    await page.context().close();
  });

  it("moves nothing for those who want no motion", async () => {
    for (const [reducedMotion, names] of [["reduce", ["none"]], ["no-preference", ["slide"]]]) {
      const { page } = await open(browser, gateway, { reducedMotion, hash: "#/call/1" });
      const name = await page.getByRole("dialog")
        .evaluate((dialog) => getComputedStyle(dialog).animationName);
      assert.deepEqual([name], names);
      await page.context().close();
    }
  });

  it("pauses, and shows what came meanwhile", async () => {
    const { page } = await open(browser, gateway);
    await page.getByRole("button", { name: "Pause" }).click();
    await call(gateway, { headers: { "x-opencode-session": "while-it-is-paused" } });
    await page.getByRole("button", { name: "Resume, 1 new call" }).waitFor();
    const { calls: [{ number }] } = await gateway.state();
    assert.equal(await row(page, "calls", number).count(), 0);
    await page.getByRole("button", { name: /^Resume/ }).click();
    await row(page, "calls", number).waitFor();
    await page.context().close();
  });

  it("turns its pages, and comes back to the newest", async () => {
    const { page } = await open(browser, gateway);
    const newest = (await gateway.state()).totals.calls;
    const pages = page.getByRole("navigation", { name: "Pages of Calls" });
    await pages.getByRole("button", { name: "Older" }).click();
    await pages.getByText("page 2").waitFor();
    await row(page, "calls", newest - 50).waitFor();
    assert.equal(await row(page, "calls", newest).count(), 0);
    await call(gateway, { headers: { "x-opencode-session": "on-another-page" } });
    await page.locator("#totals").getByText(String(newest + 1), { exact: true }).waitFor();
    assert.equal(await row(page, "calls", newest + 1).count(), 0, "an older page stays as it is");
    await pages.getByRole("button", { name: "Newer" }).click();
    await row(page, "calls", newest + 1).waitFor();
    await page.context().close();
  });

  it("says that the program has gone, and shows the calls of the one that comes", async () => {
    const own = await Gateway.start();
    const { page, complaints } = await open(browser, own);
    await call(own);
    await row(page, "calls", 1).waitFor();
    await page.locator("#calls a").focus();
    await own.stop();
    await page.getByText("not connected, trying again…").waitFor();
    await said(page, "The connection is lost.");
    await own.startAgain();
    await page.getByText("live", { exact: true }).waitFor();
    await said(page, "Connected again.");
    await until(page, () => document.title === "opencode-gateway");
    await openai(own).models.list();
    await call(own, { body: { messages: [{ role: "user", content: "After the restart" }] } });
    await page.locator("#calls").getByText("After the restart").waitFor();
    assert.deepEqual(complaints.filter((line) => !/net::ERR_/.test(line)), []);
    await page.context().close();
    await own.stop();
  });
});
