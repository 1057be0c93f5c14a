#!/bin/sh
# Sets up each client as `opencode-gateway --setup` says, and makes a first call with it. Installs
# the newest clients from npm and PyPI into target/setup, without their scripts, and runs them in a
# network namespace in which there is nothing but this machine. Needs Linux, Node.js 20 and Python.
set -e
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=$root/target/setup
cargo build --manifest-path ../../gateway/Cargo.toml --target-dir "$root/target"
export SETUP_TARGET="$target" OPENCODE_GATEWAY="$root/target/debug/opencode-gateway"

npm() {
    command npm install --prefix "$target/$1" --no-save --no-package-lock --ignore-scripts \
        --omit=dev --no-audit --no-fund --loglevel=error $2
}
python() {
    [ -d "$target/$1" ] || python3 -m venv "$target/$1"
    "$target/$1/bin/pip" install --quiet --upgrade $2
}
npm node "node-linux-$(node -p process.arch)@latest"
npm opencode opencode-ai@latest
npm pi @earendil-works/pi-coding-agent@latest
npm codex @openai/codex@latest
npm claude-code @anthropic-ai/claude-code@latest
npm gemini-cli @google/gemini-cli@latest
npm qwen-code @qwen-code/qwen-code@latest
npm sdks "openai @anthropic-ai/sdk @google/genai"
python python "openai anthropic google-genai"
python aider aider-chat
exec unshare --map-root-user --net sh -c 'ip link set lo up && exec node --test'
