"""Calls a gateway's embeddings and models with OpenAI's SDK. Reads and writes one JSON object a line."""

import json
import sys

from openai import APIError, OpenAI

client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)


def call(name: str, argument: dict) -> object:
    if name == "embeddings":
        return [one.embedding for one in client.embeddings.create(**argument).data]
    if name == "models":
        return [one.id for one in client.models.list()]
    return client.models.retrieve(argument["id"]).id


for line in sys.stdin:
    try:
        result = {"value": call(**json.loads(line))}
    except APIError as error:
        result = {"status": getattr(error, "status_code", None), "code": error.code}
    print(json.dumps(result), flush=True)
