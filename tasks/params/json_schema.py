"""A JSON schema of `params.yaml` and `presets/`, by which an editor completes and explains keys.

`python -m tasks.params.json_schema` writes it; the first line of the files names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scoremodel.io.files import write_text
from tasks.files.stage import run
from tasks.params.schema import Params

__all__ = ["PATH", "json_schema", "main"]

PATH = Path("docs/params.schema.json")

_LIKE = {"type": "string", "description": "another block of these, which this one varies"}


def json_schema() -> dict[str, Any]:
    """Return the schema of the files, in which every key may be left to a default or to the file below."""
    schema = _relaxed(Params.model_json_schema())
    blocks, properties = schema["$defs"], schema["properties"]
    model = properties["models"]["additionalProperties"]
    sampler = properties["samplers"]["additionalProperties"]
    for block in [model, *sampler["anyOf"]]:
        blocks[block["$ref"].split("/")[-1]]["properties"]["like"] = _LIKE
    properties["defaults"] = {
        "type": "object",
        "description": "what every model and sampler has that does not say otherwise",
        "properties": {"model": model, "sampler": sampler},
        "additionalProperties": False,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _relaxed(schema: Any) -> Any:
    """Return a schema that asks for no key, and tells blocks of a union apart by what they hold."""
    if isinstance(schema, list):
        return [_relaxed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        "anyOf" if key == "oneOf" else key: _relaxed(value)
        for key, value in schema.items()
        if key not in ("required", "discriminator", "title", "default")
        or (isinstance(value, dict) and "type" in value)  # a parameter of that name
    }


def main(_: Sequence[str]) -> None:
    """Write the schema where the files look for it."""
    write_text(PATH, json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n")
    print(PATH)


if __name__ == "__main__":
    run(main)
