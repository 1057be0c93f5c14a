// `opencode-gateway --add-session` in front of the test gateway: the official SDKs, whose requests
// name no session, hold three conversations at once, with titles, tools and retries.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { test } from 'node:test';

const GATEWAY = process.env.OPENCODE_GATEWAY;
const { resolve } = createRequire(`${process.env.SETUP_TARGET}/sdks/package.json`);
const load = (name) => import(pathToFileURL(resolve(name)));
const KEY = 'loopback-key';

async function start(...options) {
  const program = spawn(GATEWAY, ['--listen', '0', ...options],
    { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: program.stdout })) {
    const [origin] = line.match(/page\s+(http:\/\/[\w.:]+)/)?.slice(1) ?? [];
    if (!origin) continue;
    program.stdout.resume();
    return { origin, stop: () => (program.kill('SIGINT'), once(program, 'exit')) };
  }
}

const SYSTEM = 'You are a careful engineer, and say what the tests showed.';
const TITLE = 'Generate a title for this conversation.';

/** Each SDK: how it asks with a system prompt and messages, and what it adds of the answer. */
const SDKS = {
  async openai(origin) {
    const { default: OpenAI } = await load('openai');
    const client = new OpenAI({ baseURL: `${origin}/zen/go/v1`, apiKey: KEY });
    const tool = { type: 'function', function: { name: 'read', parameters: { type: 'object' } } };
    return {
      user: (content) => ({ role: 'user', content }),
      async ask(system, messages, { tools, stream } = {}) {
        const body = {
          model: 'kimi-k3', messages: [{ role: 'system', content: system }, ...messages],
          tools: tools && [tool],
        };
        const answer = stream
          ? await client.chat.completions.stream(body).finalChatCompletion()
          : await client.chat.completions.create(body);
        return answer.choices[0].message;
      },
      results: ({ tool_calls: calls }) => calls
        ?.map(({ id }) => ({ role: 'tool', tool_call_id: id, content: 'It is flaky.' })),
      text: ({ content }) => content,
    };
  },
  async anthropic(origin) {
    const { default: Anthropic } = await load('@anthropic-ai/sdk');
    const client = new Anthropic({ baseURL: `${origin}/inference/go/anthropic`, apiKey: KEY });
    const tool = { name: 'read', input_schema: { type: 'object' } };
    return {
      user: (content) => ({ role: 'user', content }),
      async ask(system, messages, { tools, stream } = {}) {
        const body = {
          model: 'qwen4-max', max_tokens: 99, system, messages, tools: tools && [tool],
        };
        const { content } = stream
          ? await client.messages.stream(body).finalMessage() : await client.messages.create(body);
        return { role: 'assistant', content };
      },
      results({ content }) {
        const calls = content.filter(({ type }) => type === 'tool_use');
        return calls.length > 0 && [{ role: 'user', content: calls.map(({ id }) =>
          ({ type: 'tool_result', tool_use_id: id, content: 'It is flaky.' })) }];
      },
      text: ({ content }) => content.find(({ type }) => type === 'text').text,
    };
  },
  async google(origin) {
    const { GoogleGenAI } = await load('@google/genai');
    const client = new GoogleGenAI({
      apiKey: KEY,
      httpOptions: {
        baseUrl: `${origin}/inference/go/google`, retryOptions: { attempts: 3 },
      },
    });
    return {
      user: (text) => ({ role: 'user', parts: [{ text }] }),
      async ask(system, contents, { tools } = {}) {
        const ask = () => client.models.generateContent({
          model: 'gemini-4-argon', contents,
          config: {
            systemInstruction: system,
            tools: tools && [{ functionDeclarations: [{ name: 'read' }] }],
          },
        });
        const { candidates: [{ content }] } = await ask().catch(ask);
        return content;
      },
      results({ parts }) {
        const calls = parts.filter(({ functionCall }) => functionCall);
        return calls.length > 0 && [{ role: 'user', parts: calls.map(({ functionCall }) => ({
          functionResponse: { name: functionCall.name, response: { output: 'It is flaky.' } },
        })) }];
      },
      text: ({ parts }) => parts.find(({ text }) => text).text,
    };
  },
};

async function converse({ user, ask, results, text }, topic) {
  const question = `${topic}: find out why its tests are flaky, and mend them, please.`;
  await ask(TITLE, [user(question)]);
  const messages = [user(question)];
  let last;
  for (let turn = 0; turn < 3; turn += 1) {
    for (;;) {
      last = await ask(SYSTEM, messages, { tools: true, stream: turn === 1 });
      messages.push(last);
      const more = results(last);
      if (!more) break;
      messages.push(...more);
    }
    messages.push(user(`${topic}: and now part ${turn}.`));
  }
  await ask('Summarize it.', [user(`${topic}, to be summarized: ${text(last)}`)]);
}

test('three conversations of three SDKs are in three sessions', async () => {
  const answers = Array.from({ length: 30 }, (_, number) => ['--reply', number % 3 === 1
    ? 'tool:read={"path":"src/lib.rs"}'
    : `Its trace is ${randomUUID()}, and it goes on from ${randomUUID()}.`]).flat();
  const upstream = await start('--fail', '2x503', ...answers);
  const program = await start('--upstream', upstream.origin, '--add-session');
  try {
    const topics = { openai: 'The parser', anthropic: 'The exporter', google: 'The settings' };
    const all = Object.entries(topics).map(async ([name, topic]) =>
      converse(await SDKS[name](program.origin), topic));
    await Promise.all(all);
    const { calls } = await (await fetch(`${upstream.origin}/api/state`)).json();
    const sessions = {};
    for (const { session, path } of calls) {
      assert.ok(session, path);
      const kind = path.split('/').at(-1).replace(/^gemini.*/, 'google');
      (sessions[kind] ??= new Set()).add(session);
    }
    assert.deepEqual(Object.values(sessions).map(({ size }) => size), [1, 1, 1], JSON.stringify(
      calls.map(({ number, session, name, path }) => [number, session?.slice(-4), name, path])));
    assert.equal(new Set(calls.map(({ session }) => session)).size, 3);
    assert.ok(calls.some(({ status }) => status === 503));
    assert.deepEqual(calls.flatMap(({ marks }) => marks), []);
  } finally {
    await program.stop();
    await upstream.stop();
  }
});
