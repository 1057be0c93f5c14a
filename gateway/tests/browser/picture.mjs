// Takes the README's picture: the page after some real calls.

import { open, launch } from "./browser.mjs";
import { Gateway } from "./gateway.mjs";
import { Conversation, agent, call, replies } from "./traffic.mjs";

const PICTURE = new URL("../../page.png", import.meta.url).pathname;

const gateway = await Gateway.start(...replies(60));
const browser = await launch();
try {
  await agent(gateway, "Find out why the login test is flaky, and fix it.");
  await agent(gateway, "Stream the export instead of building it in memory.",
    {
      client: "review-bot", model: "glm-5.2", task: "List the callers of the export.", titled: false,
    });

  // The most common faults: a title call that forgets the session, a client that makes a new id in
  // the middle, and a client without any session.
  const forgetful = new Conversation(gateway, { model: "deepseek-v4.1-flash" });
  await forgetful.ask("Add a dark theme to the settings page.");
  await forgetful.title("Add a dark theme to the settings page.", {}).catch(() => {});
  await forgetful.ask("Use the system's preference by default.");
  await forgetful.ask("And remember what the user chose.");
  forgetful.session = crypto.randomUUID();
  await forgetful.ask("Now the same for the login page.");
  await agent(gateway, "Write the release notes for 0.4.",
    { task: "Which pull requests were merged since 0.3?", titled: false });
  await call(gateway, { headers: { "user-agent": "nightly-report/2.1" }, body: {
    messages: [{ role: "user", content: "Summarize what was merged since yesterday." }],
  } });

  const { page } = await open(browser, gateway);
  await page.setViewportSize({ width: 1200, height: 720 });
  await page.screenshot({ path: PICTURE, animations: "disabled" });
} finally {
  await browser.close();
  await gateway.stop();
}
