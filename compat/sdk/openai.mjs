// Calls through OpenAI's official SDK: `openai.mjs ORIGIN KEY`.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [origin, key] = process.argv.slice(2);
const system = 'Use the tools, and be brief. '.repeat(200);
const clock = { name: 'clock', parameters: { type: 'object', properties: {} } };
const noon = 'It is noon.';
const model = 'kimi-k3';

const client = (base, defaultHeaders) =>
  new OpenAI({ baseURL: origin + base, apiKey: key, maxRetries: 0, defaultHeaders });

async function chat(openai) {
  const ask = (options) => openai.chat.completions.create({ model, messages, ...options });
  let messages = [{ role: 'system', content: system }, { role: 'user', content: 'Hello' }];
  const { message } = (await ask()).choices[0];
  assert(message.content);
  messages.push(message, { role: 'user', content: 'And now?' });
  let [text, usage] = ['', null];
  for await (const chunk of await ask({ stream: true })) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert(text);
  assert(usage.prompt_tokens_details.cached_tokens > 0.9 * usage.prompt_tokens);

  const before = messages;
  const tools = [{ type: 'function', function: clock }];
  for (const stream of [false, true]) {
    messages = [...before, { role: 'user', content: 'What time is it?' }];
    const answer = stream
      ? await openai.chat.completions.stream({ model, messages, tools }).finalMessage()
      : (await ask({ tools })).choices[0].message;
    const [call] = answer.tool_calls;
    assert.equal(call.function.name, 'clock');
    assert.deepEqual(JSON.parse(call.function.arguments), { zone: 'UTC' });
    messages.push(answer, { role: 'tool', tool_call_id: call.id, content: noon });
    assert((await ask({ tools })).choices[0].message.content);
  }
}

async function responses(openai) {
  const input = [{ role: 'user', content: 'Hello' }];
  const ask = (options) =>
    openai.responses.create({ model, instructions: system, input, store: false, ...options });
  const answer = await ask();
  assert(answer.output_text);
  input.push(...answer.output, { role: 'user', content: 'And now?' });
  let [text, usage] = ['', null];
  for await (const event of await ask({ stream: true })) {
    if (event.type === 'response.output_text.delta') text += event.delta;
    if (event.type === 'response.completed') usage = event.response.usage;
  }
  assert(text);
  assert(usage.input_tokens_details.cached_tokens > 0.9 * usage.input_tokens);

  input.push({ role: 'user', content: 'What time is it?' });
  const tools = [{ type: 'function', strict: false, ...clock }];
  const [call] = (await ask({ tools })).output;
  assert.equal(call.name, 'clock');
  assert.deepEqual(JSON.parse(call.arguments), { zone: 'UTC' });
  input.push(call, { type: 'function_call_output', call_id: call.call_id, output: noon });
  assert((await ask({ tools })).output_text);
}

// The same question in both formats, whole and streamed.
function calls(openai, model) {
  const messages = [{ role: 'user', content: 'Hello' }];
  return [false, true].flatMap((stream) => [
    () => consume(openai.chat.completions.create({ model, messages, stream })),
    () => consume(openai.responses.create({ model, input: 'Hello', stream })),
  ]);
}

async function consume(answering) {
  const answer = await answering;
  if (!(Symbol.asyncIterator in answer)) return answer;
  let last;
  for await (const event of answer) last = event;
  return last;
}

const session = { 'x-opencode-session': crypto.randomUUID() };
for (const base of ['/zen/v1', '/zen/go/v1', '/inference/openai/v1', '/inference/go/openai/v1']) {
  for (const hold of [chat, responses]) {
    await hold(client(base, { 'x-opencode-session': crypto.randomUUID() }));
  }
  for (const call of calls(client(base, {}), model)) {
    if (base.includes('/go/')) {
      await assert.rejects(call(), { status: 400, type: 'MissingSessionID' });
    } else {
      assert(await call());
    }
  }
  for (const call of calls(client(base, session), `${model}-free`)) {
    await assert.rejects(call(), { status: 403, type: 'FreeTierError' });
  }
}
