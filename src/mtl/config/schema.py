"""The JSON Schema of params.yaml, for editors: `python -m mtl.config.schema` writes params.schema.json.

It says what the types say of single values. That a task's recipe exists, and what else takes several values to tell, is
checked when the file is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mtl import files
from mtl.config.params import Params

PATH = Path("params.schema.json")


class _Schema(GenerateJsonSchema):
    """Without titles, which would repeat the keys, and without keys that are not like their pattern."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return made | {"additionalProperties": False} if "patternProperties" in made else made


def schema() -> dict[str, Any]:
    """The schema, of JSON Schema 2020-12."""
    return {"$schema": _Schema.schema_dialect, **Params.model_json_schema(schema_generator=_Schema)}


if __name__ == "__main__":
    files.write_json(PATH, schema())
