// Chromium without a window.

import { existsSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const executablePath = process.env.CHROMIUM
  ?? ["/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => existsSync(path));

export const launch = () => chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
});

/** Every look that the page is tested in. */
export const LOOKS = [1440, 900, 390].flatMap((width) =>
  ["light", "dark"].map((scheme) => ({ width, scheme })));

/** Opens the page, and returns it with the complaints of its console. What the page tells a screen
 * reader is in `window.said`. */
export async function open(browser, gateway, look = {}) {
  const { width = 1440, scheme = "light", hash = "", ...options } = look;
  const context = await browser.newContext({
    viewport: { width, height: 900 }, colorScheme: scheme, ...options,
  });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: gateway.origin });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("dialog", async (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    await dialog.dismiss();
  });
  await page.addInitScript(() => {
    window.said = [];
    addEventListener("DOMContentLoaded", () => {
      const status = document.querySelector("[role=status]");
      new MutationObserver(() => window.said.push(status.textContent))
        .observe(status, { childList: true });
    });
  });
  await page.goto(`${gateway.origin}/${hash}`);
  await page.getByText("live", { exact: true }).waitFor();
  await page.locator("#connect").waitFor();
  return { page, complaints };
}

export const rows = (page, list) => page.locator(`#${list} tbody tr`);

export const row = (page, list, number) =>
  rows(page, list).filter({ has: page.locator(`a[href="#/call/${number}"]`) });

export const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

/** Asserts that the page fits its window, that no text is cut off, and that axe finds no fault. */
export async function isSound(page) {
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll("html, th, .why strong, button, dd, h2, .tag, "
      + "td:is(.number, .time, .session, .turn, .calls, .turns, .cached, .cost, .answer)")]
      .filter((element) => element.checkVisibility()
        && element.scrollWidth > Math.max(element.clientWidth, element.offsetWidth) + 1)
      .map(({ tagName, className, textContent }) =>
        `${tagName} ${className} ${textContent.slice(0, 60)}`));
  assert.deepEqual(wide, [], "cut off");
  const { violations } = await new AxeBuilder({ page })
    .options({ resultTypes: ["violations"] }).analyze();
  assert.deepEqual(
    violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))]), []);
}
