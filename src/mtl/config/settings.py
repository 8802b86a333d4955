"""The base of every section of params.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class _Like(AfterValidator):
    """A validator whose pattern is in the JSON Schema too."""

    pattern: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$"}


def like(pattern: str, words: str) -> AfterValidator:
    """Ask for text that is, as a whole, like `pattern`; an error says it in `words`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {words}, not {text[:80]!r}")
        return text

    return _Like(check, pattern)


class Settings(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
