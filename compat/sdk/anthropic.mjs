// Calls through Anthropic's official SDK: `anthropic.mjs ORIGIN KEY`.

import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';

const [origin, key] = process.argv.slice(2);
const noon = 'It is noon.';
const mark = { type: 'ephemeral' };
const options = {
  model: 'kimi-k3',
  max_tokens: 1000,
  system: [
    { type: 'text', text: 'Use the tools, and be brief. '.repeat(200), cache_control: mark },
  ],
};
const tools = [{ name: 'clock', input_schema: { type: 'object', properties: {} } }];

function client(base, defaultHeaders) {
  // Zen takes the key only in this header; the SDK's newest versions send another one.
  if (base.startsWith('/zen')) defaultHeaders['x-api-key'] = key;
  return new Anthropic({ baseURL: origin + base, apiKey: key, maxRetries: 0, defaultHeaders });
}

async function hold(anthropic) {
  const messages = [{ role: 'user', content: 'Hello' }];
  const answer = await anthropic.messages.create({ ...options, messages });
  assert(answer.content[0].text);
  messages.push(
    { role: 'assistant', content: answer.content[0].text },
    { role: 'user', content: [{ type: 'text', text: 'And now?', cache_control: mark }] },
  );
  const { content, usage } = await anthropic.messages
    .stream({ ...options, messages })
    .finalMessage();
  assert(content[0].text);
  const cached = usage.cache_read_input_tokens;
  assert(cached > 0.9 * (usage.input_tokens + cached));

  for (const stream of [false, true]) {
    const asked = [...messages, { role: 'user', content: 'What time is it?' }];
    const request = { ...options, tools, messages: asked };
    const { content, stop_reason } = stream
      ? await anthropic.messages.stream(request).finalMessage()
      : await anthropic.messages.create(request);
    assert.equal(stop_reason, 'tool_use');
    assert.equal(content[0].name, 'clock');
    assert.deepEqual(content[0].input, { zone: 'UTC' });
    asked.push(
      { role: 'assistant', content },
      {
        role: 'user',
        content: [{ type: 'tool_result', tool_use_id: content[0].id, content: noon }],
      },
    );
    assert((await anthropic.messages.create(request)).content[0].text);
  }
}

// The same question, whole and streamed.
function calls(anthropic, model) {
  const request = { model, max_tokens: 1000, messages: [{ role: 'user', content: 'Hello' }] };
  return [
    () => anthropic.messages.create(request),
    () => anthropic.messages.stream(request).finalMessage(),
  ];
}

for (const base of ['/zen', '/zen/go', '/inference/anthropic', '/inference/go/anthropic']) {
  const session = { 'x-opencode-session': crypto.randomUUID() };
  await hold(client(base, { ...session }));
  for (const call of calls(client(base, {}), 'kimi-k3')) {
    if (base.includes('/go')) {
      await assert.rejects(call(), { status: 400, message: /MissingSessionID/ });
    } else {
      assert((await call()).content);
    }
  }
  for (const call of calls(client(base, { ...session }), 'kimi-k3-free')) {
    await assert.rejects(call(), { status: 403, message: /FreeTierError/ });
  }
}
