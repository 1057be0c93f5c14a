"""Calls through OpenAI's official SDK: `openai_sdk.py ORIGIN KEY`."""

import json
import sys
import uuid

from openai import APIStatusError, OpenAI, Stream

ORIGIN, KEY = sys.argv[1:]
SYSTEM = "Use the tools, and be brief. " * 200
CLOCK = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
NOON = "It is noon."


def client(base, **headers):
    return OpenAI(base_url=ORIGIN + base, api_key=KEY, max_retries=0, default_headers=headers)


def chat(openai):
    def ask(**options):
        return openai.chat.completions.create(model="kimi-k3", messages=messages, **options)

    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hello"}]
    answer = ask().choices[0].message
    assert answer.content, answer
    messages += [answer.model_dump(exclude_none=True), {"role": "user", "content": "And now?"}]
    text, usage = "", None
    for chunk in ask(stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text, text
    assert usage.prompt_tokens_details.cached_tokens > 0.9 * usage.prompt_tokens, usage

    for stream in [False, True]:
        messages.append({"role": "user", "content": "What time is it?"})
        tools = [{"type": "function", "function": CLOCK}]
        if stream:
            with openai.chat.completions.stream(
                model="kimi-k3", messages=messages, tools=tools
            ) as events:
                for _ in events:
                    pass
                answer = events.get_final_completion().choices[0].message
        else:
            answer = ask(tools=tools).choices[0].message
        [call] = answer.tool_calls
        assert call.function.name == "clock", call
        assert json.loads(call.function.arguments) == {"zone": "UTC"}, call
        messages.append(
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": "clock", "arguments": call.function.arguments},
                    }
                ],
            }
        )
        messages.append({"role": "tool", "tool_call_id": call.id, "content": NOON})
        answer = ask(tools=tools).choices[0].message
        assert answer.content, answer
        messages = messages[:-3]


def responses(openai):
    def ask(**options):
        return openai.responses.create(
            model="kimi-k3", instructions=SYSTEM, input=items, store=False, **options
        )

    items = [{"role": "user", "content": "Hello"}]
    answer = ask()
    assert answer.output_text, answer
    items += [item.model_dump(exclude_none=True) for item in answer.output]
    items.append({"role": "user", "content": "And now?"})
    text = ""
    for event in ask(stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            usage = event.response.usage
    assert text, text
    assert usage.input_tokens_details.cached_tokens > 0.9 * usage.input_tokens, usage

    items.append({"role": "user", "content": "What time is it?"})
    tools = [{"type": "function", "strict": False, **CLOCK}]
    [call] = ask(tools=tools).output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "clock",
        {"zone": "UTC"},
    )
    items.append(call.model_dump(exclude_none=True))
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": NOON})
    assert ask(tools=tools).output_text


def calls(openai, model):
    """The same question in both formats, whole and streamed."""
    for stream in [False, True]:
        for create, prompt in [
            (openai.chat.completions.create, {"messages": [{"role": "user", "content": "Hello"}]}),
            (openai.responses.create, {"input": "Hello"}),
        ]:
            yield lambda: consume(create(model=model, stream=stream, **prompt))


def consume(answer):
    return list(answer) if isinstance(answer, Stream) else answer


def refused(call, status, kind):
    try:
        call()
    except APIStatusError as error:
        assert (error.status_code, error.type) == (status, kind), error
    else:
        raise AssertionError(f"a call was answered, not refused with {kind}")


for base in ["/zen/v1", "/zen/go/v1", "/inference/openai/v1", "/inference/go/openai/v1"]:
    session = {"x-opencode-session": str(uuid.uuid4())}
    for hold in [chat, responses]:
        hold(client(base, **{"x-opencode-session": str(uuid.uuid4())}))
    for call in calls(client(base), "kimi-k3"):
        if "/go/" in base:
            refused(call, 400, "MissingSessionID")
        else:
            assert call()
    for call in calls(client(base, **session), "kimi-k3-free"):
        refused(call, 403, "FreeTierError")
