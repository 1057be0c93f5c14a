// The page after 100,000 calls. Times are printed, but never asserted.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { isSound, launch, open, row, rows } from "./browser.mjs";
import { Gateway } from "./gateway.mjs";
import { faults, flood, replies } from "./traffic.mjs";

const CALLS = 100_000;

const KIB = 1024;

describe(`after ${CALLS} calls`, () => {
  let browser, gateway, numbers, page, complaints, events, total;

  before(async () => {
    browser = await launch();
    gateway = await Gateway.start("--keep", String(CALLS / 2), ...replies(20));
    numbers = await faults(gateway);
    // The calls that stand out are the oldest, and more good calls follow than are kept.
    ({ page, complaints } = await open(browser, gateway));
    events = longestEvent(gateway);
    const began = performance.now();
    await flood(gateway, CALLS);
    const seconds = (performance.now() - began) / 1000;
    ({ calls: total } = (await gateway.state()).totals);
    console.log(`${CALLS} calls in ${seconds.toFixed(0)} s, with the page open`);
  });

  after(async () => {
    await browser.close();
    await gateway.stop();
  });

  it("has kept every row that stands out, and says what is no longer kept", async () => {
    for (const number of Object.values(numbers)) await row(page, "standouts", number).waitFor();
    const { totals } = await gateway.state();
    assert.equal(totals.dropped_faults, 0);
    assert.ok(totals.dropped >= CALLS / 2);
    await page.locator("footer").getByText(/older calls no longer kept\. What stands out is kept\./)
      .waitFor();
  });

  it("has followed them, in little memory and few elements", async () => {
    await row(page, "calls", total).waitFor();
    await page.locator("#totals").getByText(total.toLocaleString("en")).waitFor();
    const elements = await page.evaluate(() => document.querySelectorAll("*").length);
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("HeapProfiler.collectGarbage");
    const { usedSize } = await devtools.send("Runtime.getHeapUsage");
    console.log(`the page: ${elements} elements, ${(usedSize / KIB / KIB).toFixed(1)} MiB of heap`);
    assert.ok(elements < 3000, `${elements} elements`);
    assert.ok(usedSize < 32 * KIB * KIB, `${usedSize} bytes`);
    assert.deepEqual(complaints, []);
    await isSound(page);
  });

  it("was told of them in small pieces", async () => {
    const { longest, count } = events.end();
    const state = await (await fetch(`${gateway.origin}/api/state`)).text();
    console.log(`${count} events, the longest ${(longest / KIB).toFixed(0)} KiB; `
      + `the state ${(state.length / KIB).toFixed(0)} KiB`);
    assert.ok(count > 0 && longest < KIB * KIB, `${longest} bytes`);
    assert.ok(state.length < KIB * KIB, `${state.length} bytes`);
  });

  it("opens anew", async () => {
    const times = [];
    for (let round = 0; round < 5; round += 1) {
      const context = await browser.newContext();
      const fresh = await context.newPage();
      await fresh.addInitScript(() => {
        new MutationObserver((_, observer) => {
          const isThere = ["standouts", "conversations", "calls"].every((id) =>
            document.querySelector(`#${id}:not([hidden]) tbody tr`));
          if (!isThere) return;
          observer.disconnect();
          requestAnimationFrame(() => { window.shownAt = performance.now(); });
        }).observe(document, { childList: true, subtree: true, attributes: true });
      });
      await fresh.goto(gateway.origin);
      times.push(await (await fresh.waitForFunction(() => window.shownAt)).jsonValue());
      await context.close();
    }
    console.log(`the first view: ${times.map((time) => time.toFixed(0)).join(", ")} ms`);
  });

  it("is searched, paged, and opened at its oldest call", async () => {
    const began = performance.now();
    await page.getByRole("searchbox").fill(`Question ${CALLS - 77} of`);
    await rows(page, "calls").filter({ hasText: `Question ${CALLS - 77} of` }).waitFor();
    assert.equal(await rows(page, "calls").count(), 1);
    console.log(`a search: ${(performance.now() - began).toFixed(0)} ms`);
    await page.getByRole("searchbox").fill("");
    await row(page, "calls", total).waitFor();
    const pages = page.getByRole("navigation", { name: "Pages of Calls" });
    await pages.getByRole("button", { name: "Older" }).click();
    await row(page, "calls", total - 50).waitFor();
    assert.equal(await rows(page, "calls").count(), 50);
    await row(page, "standouts", numbers.missed).click();
    await page.getByRole("dialog", { name: `Call ${numbers.missed}` })
      .getByText("MissingSessionID").first().waitFor();
  });
});

/** Listens to the events as the page does, and measures them. */
function longestEvent(gateway) {
  const abort = new AbortController();
  let longest = 0, count = 0;
  (async () => {
    const answer = await fetch(`${gateway.origin}/api/events`, { signal: abort.signal });
    let length = 0;
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      for (const [index, part] of piece.split("\n\n").entries()) {
        if (index > 0) {
          count += 1;
          length = 0;
        }
        length += part.length;
        longest = Math.max(longest, length);
      }
    }
  })().catch((error) => { if (error.name !== "AbortError") throw error; });
  return {
    end() {
      abort.abort();
      return { longest, count };
    },
  };
}
