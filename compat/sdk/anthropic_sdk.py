"""Calls through Anthropic's official SDK: `anthropic_sdk.py ORIGIN KEY`."""

import sys
import uuid

from anthropic import Anthropic, APIStatusError

ORIGIN, KEY = sys.argv[1:]
SYSTEM = "Use the tools, and be brief. " * 200
TOOLS = [{"name": "clock", "input_schema": {"type": "object", "properties": {}}}]
NOON = "It is noon."


def client(base, **headers):
    # Zen takes the key only in this header; the SDK's newest versions send another one.
    if base.startswith("/zen"):
        headers["x-api-key"] = KEY
    return Anthropic(base_url=ORIGIN + base, api_key=KEY, max_retries=0, default_headers=headers)


def hold(anthropic):
    options = {"model": "kimi-k3", "max_tokens": 1000}
    mark = {"type": "ephemeral"}
    options["system"] = [{"type": "text", "text": SYSTEM, "cache_control": mark}]
    messages = [{"role": "user", "content": "Hello"}]
    answer = anthropic.messages.create(messages=messages, **options)
    assert answer.content[0].text, answer
    text = {"type": "text", "text": "And now?", "cache_control": mark}
    messages += [
        {"role": "assistant", "content": answer.content[0].text},
        {"role": "user", "content": [text]},
    ]
    with anthropic.messages.stream(messages=messages, **options) as stream:
        assert "".join(stream.text_stream)
        usage = stream.get_final_message().usage
    cached = usage.cache_read_input_tokens
    assert cached > 0.9 * (usage.input_tokens + cached), usage

    for stream in [False, True]:
        asked = messages + [{"role": "user", "content": "What time is it?"}]
        if stream:
            with anthropic.messages.stream(messages=asked, tools=TOOLS, **options) as events:
                answer = events.get_final_message()
        else:
            answer = anthropic.messages.create(messages=asked, tools=TOOLS, **options)
        [call] = answer.content
        assert answer.stop_reason == "tool_use", answer
        assert (call.name, call.input) == ("clock", {"zone": "UTC"}), call
        asked += [
            {"role": "assistant", "content": answer.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": NOON}],
            },
        ]
        answer = anthropic.messages.create(messages=asked, tools=TOOLS, **options)
        assert answer.content[0].text, answer


def calls(anthropic, model):
    """The same question, whole and streamed."""
    options = {
        "model": model,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "Hello"}],
    }

    def stream():
        with anthropic.messages.stream(**options) as events:
            return events.get_final_message()

    return [lambda: anthropic.messages.create(**options), stream]


def refused(call, status, kind):
    try:
        call()
    except APIStatusError as error:
        assert error.status_code == status and kind in str(error), error
    else:
        raise AssertionError(f"a call was answered, not refused with {kind}")


for base in ["/zen", "/zen/go", "/inference/anthropic", "/inference/go/anthropic"]:
    session = {"x-opencode-session": str(uuid.uuid4())}
    hold(client(base, **session))
    for call in calls(client(base), "kimi-k3"):
        if "/go" in base:
            refused(call, 400, "MissingSessionID")
        else:
            assert call().content
    for call in calls(client(base, **session), "kimi-k3-free"):
        refused(call, 403, "FreeTierError")
