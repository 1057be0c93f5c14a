"""Calls through Google's official SDK: `google_sdk.py ORIGIN KEY`."""

import sys
import uuid

from google import genai
from google.genai import errors, types

ORIGIN, KEY = sys.argv[1:]
SYSTEM = "Use the tools, and be brief. " * 200
CLOCK = types.FunctionDeclaration(name="clock", description="The time")
TOOLS = [types.Tool(function_declarations=[CLOCK])]
NOON = "It is noon."


def client(base, version, **headers):
    options = types.HttpOptions(base_url=ORIGIN + base, api_version=version, headers=headers)
    return genai.Client(api_key=KEY, http_options=options)


def hold(google):
    def user(text):
        return types.Content(role="user", parts=[types.Part(text=text)])

    def options(**more):
        return {
            "model": "kimi-k3",
            "contents": contents,
            "config": types.GenerateContentConfig(system_instruction=SYSTEM, **more),
        }

    contents = [user("Hello")]
    answer = google.models.generate_content(**options())
    assert answer.text, answer
    contents += [answer.candidates[0].content, user("And now?")]
    text, usage = "", None
    for chunk in google.models.generate_content_stream(**options()):
        text += chunk.text or ""
        usage = chunk.usage_metadata or usage
    assert text, text
    assert usage.cached_content_token_count > 0.9 * usage.prompt_token_count, usage

    for stream in [False, True]:
        before = contents
        contents = contents + [user("What time is it?")]
        with_tools = options(tools=TOOLS)
        if stream:
            calls = []
            for chunk in google.models.generate_content_stream(**with_tools):
                calls += chunk.function_calls or []
            [call] = calls
        else:
            answer = google.models.generate_content(**with_tools)
            [call] = answer.function_calls
            assert answer.candidates[0].content.parts[0].thought_signature, answer
        assert (call.name, call.args) == ("clock", {"zone": "UTC"}), call
        response = types.Part.from_function_response(name="clock", response={"result": NOON})
        contents += [
            types.Content(role="model", parts=[types.Part(function_call=call)]),
            types.Content(role="user", parts=[response]),
        ]
        assert google.models.generate_content(**options(tools=TOOLS)).text
        contents = before


def calls(google, model):
    """The same question, whole and streamed."""
    options = {"model": model, "contents": "Hello"}
    return [
        lambda: google.models.generate_content(**options).text,
        lambda: list(google.models.generate_content_stream(**options)),
    ]


def refused(call, status, kind):
    try:
        call()
    except errors.ClientError as error:
        assert error.code == status and kind in str(error), error
    else:
        raise AssertionError(f"a call was answered, not refused with {kind}")


for base, version in [
    ("/zen", "v1"),
    ("/inference/google", "v1beta"),
    ("/inference/go/google", "v1beta"),
]:
    session = {"x-opencode-session": str(uuid.uuid4())}
    hold(client(base, version, **session))
    for call in calls(client(base, version), "kimi-k3"):
        if "/go/" in base:
            refused(call, 400, "MissingSessionID")
        else:
            assert call()
    for call in calls(client(base, version, **session), "kimi-k3-free"):
        refused(call, 403, "FreeTierError")
