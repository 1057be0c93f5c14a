// Each client after the commands of `opencode-gateway --setup`: its first call reaches the gateway,
// with the gateway's key. The command that makes it is the one that the setup names. The same
// command makes it under a check, without a setup.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

const run = promisify(execFile);
const GATEWAY = process.env.OPENCODE_GATEWAY;
const TARGET = process.env.SETUP_TARGET;
const BIN = `${TARGET}/bin`;

/** The programs, by the directory that each is installed in. */
const PROGRAMS = {
  opencode: 'opencode/node_modules/opencode-linux-*/bin/opencode',
  pi: 'pi/node_modules/@earendil-works/pi-coding-agent/dist/bundle/cli.js',
  codex: 'codex/node_modules/@openai/codex-linux-*/vendor/*/bin/codex',
  claude: 'claude-code/node_modules/@anthropic-ai/claude-code-linux-*/claude',
  gemini: 'gemini-cli/node_modules/@google/gemini-cli/bundle/gemini.js',
  qwen: 'qwen-code/node_modules/@qwen-code/qwen-code/cli-entry.js',
  aider: 'aider/bin/aider',
};

/** Programs with SDKs, which know the base URL and the key only from the environment. */
const SDKS = {
  openai: {
    node: `import OpenAI from 'openai';
      await new OpenAI({ maxRetries: 0 }).chat.completions.create(
        { model: 'kimi-k3', messages: [{ role: 'user', content: 'Hello' }] },
        { headers: { 'x-opencode-session': 'a-session' } });`,
    python: `import openai
openai.OpenAI(max_retries=0).chat.completions.create(
    model='kimi-k3', messages=[{'role': 'user', 'content': 'Hello'}],
    extra_headers={'x-opencode-session': 'a-session'})`,
  },
  anthropic: {
    node: `import Anthropic from '@anthropic-ai/sdk';
      await new Anthropic({ maxRetries: 0 }).messages.create(
        { model: 'qwen4-max', max_tokens: 9, messages: [{ role: 'user', content: 'Hello' }] },
        { headers: { 'x-opencode-session': 'a-session' } });`,
    python: `import anthropic
anthropic.Anthropic(max_retries=0).messages.create(
    model='qwen4-max', max_tokens=9, messages=[{'role': 'user', 'content': 'Hello'}],
    extra_headers={'x-opencode-session': 'a-session'})`,
  },
  google: {
    node: `import { GoogleGenAI } from '@google/genai';
      await new GoogleGenAI({ apiKey: process.env.GEMINI_API_KEY }).models.generateContent(
        { model: 'gemini-4-argon', contents: 'Hello',
          config: { httpOptions: { headers: { 'x-opencode-session': 'a-session' } } } });`,
    python: `from google import genai
client = genai.Client(http_options={'headers': {'x-opencode-session': 'a-session'}})
client.models.generate_content(model='gemini-4-argon', contents='Hello')`,
  },
};

/** What each client's first call is: the end of its path, and whether it brings a session. */
const CALLS = {
  opencode: ['/zen/go/v1/chat/completions', true],
  pi: ['/inference/go/openai/v1/chat/completions', true],
  codex: ['/zen/go/v1/responses', true],
  'claude-code': ['/inference/go/anthropic/v1/messages', true],
  'gemini-cli': ['/inference/go/google/v1beta/models/gemini-4-argon:streamGenerateContent', false],
  'qwen-code': ['/zen/go/v1/chat/completions', false],
  aider: ['/zen/go/v1/chat/completions', false],
};

/** The first path of a pattern in which `*` stands for the end of a name. */
function find(pattern) {
  const names = pattern.split('/');
  const paths = names.reduce((paths, name) => {
    const [begin, isOpen] = [name.replace('*', ''), name.endsWith('*')];
    return paths.flatMap((path) => {
      if (!isOpen) return existsSync(`${path}/${name}`) ? [`${path}/${name}`] : [];
      return readdirSync(path).filter((found) => found.startsWith(begin)).sort()
        .map((found) => `${path}/${found}`);
    });
  }, [TARGET]);
  return paths[0];
}

before(() => {
  // Some need a newer one than this.
  const node = find('node/node_modules/node-*/bin/node') ?? process.execPath;
  rmSync(BIN, { recursive: true, force: true });
  mkdirSync(BIN, { recursive: true });
  symlinkSync(node, `${BIN}/node`);
  for (const [name, pattern] of Object.entries(PROGRAMS)) {
    const program = find(pattern);
    if (!program) continue;
    const command = program.endsWith('.js') ? `"${node}" "${program}"` : `"${program}"`;
    writeFileSync(`${BIN}/${name}`, `#!/bin/sh\nexec ${command} "$@"\n`);
    chmodSync(`${BIN}/${name}`, 0o755);
  }
});

/** Starts the gateway on a free port, and calls `use` with its origin. */
async function gateway(use) {
  const program = spawn(GATEWAY, ['--listen', '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    for await (const line of createInterface({ input: program.stdout })) {
      const [origin] = line.match(/http:\/\/[\w.:]+/) ?? [];
      if (!origin) continue;
      program.stdout.resume();
      return await use(origin);
    }
  } finally {
    program.kill('SIGINT');
    if (program.exitCode === null) await once(program, 'exit');
  }
}

/** The commands of a setup, and its example. */
async function setupOf(name, ...options) {
  const { stdout: setup } = await run(GATEWAY, ['--setup', name, ...options]);
  return { setup, example: setup.trimEnd().split('\n').at(-1).replace(/^# /, '') };
}

/** Runs a script in a shell of an empty home. Returns its exit code, and what it printed. */
async function inHome(name, script) {
  const home = `${TARGET}/home/${name}`;
  rmSync(home, { recursive: true, force: true });
  mkdirSync(`${home}/work`, { recursive: true });
  const environment = {
    PATH: `${BIN}:${process.env.PATH}`, HOME: home, TMPDIR: home, LANG: 'C.UTF-8',
    // No setting of ours: it stands for a CI's environment.
    CI: '1', NO_COLOR: '1', TERM: 'dumb',
  };
  const done = run('sh', ['-c', script],
    { cwd: `${home}/work`, env: environment, timeout: 120_000, killSignal: 'SIGKILL' });
  const ended = ({ code = 0, stdout, stderr }) => ({ code, output: `${stdout}${stderr}` });
  return done.then(ended, ended);
}

/** Runs a script in a shell of an empty home, after the commands of a setup. */
async function inShell(name, origin, script) {
  const { setup, example } = await setupOf(name, '--listen', new URL(origin).host);
  const { output } = await inHome(name, `${setup}\n${script ?? `${example} < /dev/null`}`);
  return output;
}

const asked = async (origin) => {
  const { calls } = await (await fetch(`${origin}/api/state`)).json();
  return calls.filter(({ kind }) => kind !== 'models' && kind !== 'request').reverse();
};

const isInstalled = (name) => {
  const program = { 'claude-code': 'claude', 'gemini-cli': 'gemini', 'qwen-code': 'qwen' }[name];
  return existsSync(`${BIN}/${program ?? name}`);
};

for (const [name, [path, hasSession]] of Object.entries(CALLS)) {
  test(`${name} calls the gateway`, async (context) => {
    if (!isInstalled(name)) return context.skip('it is not installed');
    await gateway(async (origin) => {
      const output = await inShell(name, origin);
      const calls = await asked(origin);
      const call = calls.find((call) => call.path === path);
      assert.ok(call, `no such call in ${JSON.stringify(calls.map(({ path }) => path))}: ${output}`);
      assert.equal(Boolean(call.session), hasSession, call.name);
      assert.equal(call.status, hasSession ? 200 : 400, call.error_message ?? output);
      assert.ok(hasSession || call.error === 'MissingSessionID', call.error_message);
    });
  });
}

/** Runs a command under a check. Returns its exit code, what it printed, and its calls. */
async function check(name, command) {
  const file = `${TARGET}/calls.jsonl`;
  const checked = `"${GATEWAY}" --json="${file}" --check -- ${command} < /dev/null`;
  const { code, output } = await inHome(name, checked);
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  return { code, output, calls: lines.map((line) => JSON.parse(line)) };
}

for (const [name, [path, hasSession]] of Object.entries(CALLS)) {
  test(`${name} calls the gateway under a check`, async (context) => {
    if (!isInstalled(name)) return context.skip('it is not installed');
    const { code, output, calls } = await check(name, (await setupOf(name)).example);
    assert.ok(calls.some((call) => call.path === path), output);
    assert.equal(code, hasSession ? 0 : 1, output);
  });
}

// Each could take one of the check's keys to an address of its own.
for (const model of ['', '--model openai/gpt-5', '--provider anthropic --model claude-opus-5-5',
  '--provider google --model gemini-2.5-pro']) {
  test(`pi ${model || 'without a model'} calls the gateway under a check`, async (context) => {
    if (!isInstalled('pi')) return context.skip('it is not installed');
    const { output, calls } = await check('pi', `pi ${model} --print Hello`);
    assert.ok(calls.length > 0, output);
    if (!model) assert.equal(calls[0].path, CALLS.pi[0], output);
  });
}

for (const model of ['gemini/gemini-2.5-pro', 'anthropic/claude-opus-5-5']) {
  test(`aider --model ${model} calls the gateway under a check`, async (context) => {
    if (!isInstalled('aider')) return context.skip('it is not installed');
    const { output, calls } = await check('aider', `aider --model ${model} --message Hello`);
    assert.ok(calls.length > 0, output);
  });
}

for (const [name, programs] of Object.entries(SDKS)) {
  for (const [language, program] of Object.entries(programs)) {
    test(`the SDK of ${name} in ${language} calls the gateway`, async (context) => {
      const runs = language === 'node'
        ? `cd "${TARGET}/sdks" && node --input-type=module <<'END'\n${program}\nEND\n`
        : `"${TARGET}/python/bin/python" - <<'END'\n${program}\nEND\n`;
      if (!existsSync(`${TARGET}/${language === 'node' ? 'sdks' : 'python'}`)) {
        return context.skip('it is not installed');
      }
      await gateway(async (origin) => {
        const output = await inShell(name, origin, runs);
        const [call] = await asked(origin);
        assert.equal(call?.status, 200, output);
        assert.equal(call.session, 'a-session');
      });
    });
  }
}
