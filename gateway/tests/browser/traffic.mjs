// Calls as agents make them, correct and faulty.

import { randomUUID } from "node:crypto";
import http from "node:http";
import net from "node:net";
import OpenAI from "openai";

const KEY = "loopback-key";
export const WRONG_KEY = "not-the-key-of-this-gateway";
const PATH = "/zen/go/v1/chat/completions";

const TOOLS = ["read_file", "write_file", "run_tests"].map((name) => ({
  type: "function",
  function: {
    name,
    description: `Calls ${name} in the working tree.`,
    parameters: { type: "object", properties: { path: { type: "string" } } },
  },
}));

const SYSTEM = "You are a careful engineer. Read before you change, and change as little as you "
  + "can. Run the tests after each change, and say what they showed. ".repeat(12);

/** The gateway's next answers, with which each turn of an agent has a tool call and an end. */
export function replies(turns) {
  const turn = [
    "--reply", 'tool:read_file={"path":"src/login.rs"}',
    "--reply", "The test waits for a fixed port. I let the system choose one.",
  ];
  return ["--reply", "title:A flaky test", ...Array(turns).fill(turn).flat()];
}

export const openai = (gateway, options) =>
  new OpenAI({ baseURL: `${gateway.origin}/zen/go/v1`, apiKey: KEY, maxRetries: 0, ...options });

/** A conversation of an agent that keeps its session. */
export class Conversation {
  constructor(gateway, { client = "my-agent", model = "kimi-k3", parent, tools = TOOLS } = {}) {
    Object.assign(this, { model, tools, parent, client });
    this.sdk = openai(gateway);
    this.session = randomUUID();
    this.messages = [{ role: "system", content: SYSTEM }];
  }

  headers(others = {}) {
    const headers = {
      "x-opencode-session": this.session,
      "x-opencode-request": this.turn,
      "x-opencode-client": this.client,
      "x-parent-session-id": this.parent,
      ...others,
    };
    return Object.fromEntries(Object.entries(headers).filter(([, value]) => value));
  }

  /** One turn: calls until the model has called its last tool. */
  async ask(words, headers) {
    this.turn = randomUUID();
    this.messages.push({ role: "user", content: words });
    for (;;) {
      const answer = await this.sdk.chat.completions.create(
        { model: this.model, messages: this.messages, tools: this.tools },
        { headers: this.headers(headers) },
      );
      const { message } = answer.choices[0];
      this.messages.push(message);
      if (!message.tool_calls) return message.content;
      for (const { id } of message.tool_calls) {
        this.messages.push({
          role: "tool", tool_call_id: id,
          content: "let listener = TcpListener::bind(\"127.0.0.1:8080\")?;\n".repeat(8),
        });
      }
    }
  }

  /** The call for its title: the one in which clients forget the session. */
  async title(words, headers) {
    const messages = [
      { role: "system", content: "Generate a title for this conversation." },
      { role: "user", content: words },
    ];
    return this.sdk.chat.completions.create({ model: this.model, messages }, { headers });
  }
}

/** Makes a call without an SDK, whose headers may be wrong in any way. Returns the status. */
export function call(gateway, { headers = {}, body = {}, key = KEY, agent } = {}) {
  const request = http.request(`${gateway.origin}${PATH}`, {
    method: "POST", agent,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers },
  });
  request.end(JSON.stringify({
    model: "kimi-k3", messages: [{ role: "user", content: "Hello" }], ...body,
  }));
  return new Promise((resolve, reject) => {
    request.on("error", reject);
    request.on("response", (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode));
    });
  });
}

/** Holds a conversation of three turns, with a subagent. */
export async function agent(gateway, words, options = {}) {
  const { task = "Find every test that binds a port.", titled = true } = options;
  const conversation = new Conversation(gateway, options);
  await conversation.ask(words);
  if (titled) await conversation.title(words, conversation.headers());
  await conversation.ask("Run the tests again.");
  const helper = new Conversation(gateway, { ...options, parent: conversation.session });
  await helper.ask(task);
  await conversation.ask("Write a message for the commit.");
  return { conversation, helper };
}

/** Makes every fault that the page shows, and returns the number of each call. */
export async function faults(gateway) {
  const numbers = {};
  const last = async () => (await gateway.state()).calls[0].number;
  const marked = async (name) => (await gateway.state()).standouts
    .find(({ marks }) => marks.some((mark) => mark.name === name)).number;

  const titled = new Conversation(gateway);
  await titled.title("Add a dark theme.", { "x-opencode-client": "my-agent" }).catch(() => {});
  numbers.missed = await last();

  const moved = new Conversation(gateway);
  await moved.ask("Refactor the parser so that it reads a stream.");
  moved.session = randomUUID();
  await moved.ask("Now its tests.");
  numbers.moved = await marked("moved");

  const first = new Conversation(gateway);
  await first.ask("Why does the build take so long?");
  const second = new Conversation(gateway);
  second.session = first.session;
  await second.ask("Translate the README.");
  await second.ask("Into Finnish as well.");
  await first.ask("And on the other machine?");
  numbers.shared = await marked("shared");

  await call(gateway, { headers: { "x-opencode-session": [randomUUID(), randomUUID()] } });
  numbers.doubled = await last();
  await call(gateway, { headers: { "x-opencode-session": "my session" } });
  numbers.malformed = await last();
  await call(gateway, { headers: { "x-opencode-session": randomUUID() }, key: WRONG_KEY });
  numbers.refused = await last();
  return numbers;
}

/** Makes many good calls as fast as the gateway answers, several at a time on each connection. */
export async function flood(gateway, calls) {
  const CONNECTIONS = 8, AT_ONCE = 64, CONVERSATIONS = 500;
  const { hostname, port, host } = new URL(gateway.origin);
  const sessions = Array.from({ length: CONVERSATIONS }, () => randomUUID());
  let next = 0;
  const request = () => {
    const number = next++;
    const session = sessions[number % CONVERSATIONS];
    const messages = [{ role: "user", content: `Question ${number} of ${session}` }];
    const body = JSON.stringify({ model: "kimi-k3", messages });
    return `POST ${PATH} HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${KEY}\r\n`
      + `content-type: application/json\r\ncontent-length: ${body.length}\r\n`
      + `x-opencode-session: ${session}\r\nx-opencode-client: busy-agent\r\n\r\n${body}`;
  };
  const connection = async () => {
    const socket = net.connect(port, hostname).setNoDelay().setEncoding("latin1");
    const send = () => {
      const requests = Array.from({ length: Math.min(AT_ONCE, calls - next) }, request);
      socket.write(requests.join(""));
      return requests.length;
    };
    let waiting = send(), rest = "";
    for await (const piece of socket) {
      const answers = (rest + piece).split("HTTP/1.1 ");
      rest = answers.pop().slice(-16);
      waiting -= answers.length;
      if (waiting > 0) continue;
      if (next >= calls) break;
      waiting = send();
    }
    if (waiting > 0) throw new Error(`${waiting} calls were not answered`);
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, connection));
}
