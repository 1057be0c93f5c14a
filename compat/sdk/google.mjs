// Calls through Google's official SDK: `google.mjs ORIGIN KEY`.

import assert from 'node:assert/strict';
import { GoogleGenAI } from '@google/genai';

const [origin, apiKey] = process.argv.slice(2);
const systemInstruction = 'Use the tools, and be brief. '.repeat(200);
const tools = [{ functionDeclarations: [{ name: 'clock', description: 'The time' }] }];
const noon = 'It is noon.';
const model = 'kimi-k3';

const client = (baseUrl, apiVersion, headers) =>
  new GoogleGenAI({ apiKey, httpOptions: { baseUrl: origin + baseUrl, apiVersion, headers } });
const user = (text) => ({ role: 'user', parts: [{ text }] });

async function hold({ models }) {
  const request = (contents, more) => ({
    model,
    contents,
    config: { systemInstruction, ...more },
  });
  const contents = [user('Hello')];
  const answer = await models.generateContent(request(contents));
  assert(answer.text);
  contents.push(answer.candidates[0].content, user('And now?'));
  let [text, usage] = ['', null];
  for await (const chunk of await models.generateContentStream(request(contents))) {
    text += chunk.text ?? '';
    usage = chunk.usageMetadata ?? usage;
  }
  assert(text);
  assert(usage.cachedContentTokenCount > 0.9 * usage.promptTokenCount);

  for (const stream of [false, true]) {
    const asked = [...contents, user('What time is it?')];
    let calls = [];
    if (stream) {
      for await (const chunk of await models.generateContentStream(request(asked, { tools }))) {
        calls.push(...(chunk.functionCalls ?? []));
      }
    } else {
      calls = (await models.generateContent(request(asked, { tools }))).functionCalls;
    }
    assert.equal(calls.length, 1);
    assert.equal(calls[0].name, 'clock');
    assert.deepEqual(calls[0].args, { zone: 'UTC' });
    const functionResponse = { name: 'clock', response: { result: noon } };
    asked.push(
      { role: 'model', parts: [{ functionCall: calls[0] }] },
      { role: 'user', parts: [{ functionResponse }] },
    );
    assert((await models.generateContent(request(asked, { tools }))).text);
  }
}

// The same question, whole and streamed.
function calls({ models }, model) {
  const request = { model, contents: 'Hello' };
  return [
    () => models.generateContent(request),
    async () => {
      let last;
      for await (const chunk of await models.generateContentStream(request)) last = chunk;
      return last;
    },
  ];
}

for (const [base, version] of [
  ['/zen', 'v1'],
  ['/inference/google', 'v1beta'],
  ['/inference/go/google', 'v1beta'],
]) {
  const session = { 'x-opencode-session': crypto.randomUUID() };
  await hold(client(base, version, session));
  for (const call of calls(client(base, version, {}), model)) {
    if (base.includes('/go/')) {
      await assert.rejects(call(), { status: 400, message: /MissingSessionID/ });
    } else {
      assert(await call());
    }
  }
  for (const call of calls(client(base, version, session), `${model}-free`)) {
    await assert.rejects(call(), { status: 403, message: /FreeTierError/ });
  }
}
