"""Calls a gateway with OpenAI's SDK, its own retries on. Reads one JSON object a line, writes one JSON object a line."""

import json
import sys

from openai import APIError, OpenAI

client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2])


def call(stream: bool) -> dict:
    request = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    text = ""
    try:
        if not stream:
            return {"text": client.chat.completions.create(**request).choices[0].message.content}
        for chunk in client.chat.completions.create(**request, stream=True):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        return {"text": text}
    except APIError as error:
        return {"text": text, "status": getattr(error, "status_code", None), "code": error.code}


for line in sys.stdin:
    print(json.dumps(call(**json.loads(line))), flush=True)
