"""The base of every section of params.yaml."""

from __future__ import annotations

import re

from pydantic import AfterValidator, BaseModel, ConfigDict


def like(pattern: str, words: str) -> AfterValidator:
    """Ask for text that is, as a whole, like `pattern`; an error says it in `words`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {words}, not {text[:80]!r}")
        return text

    return AfterValidator(check)


class Settings(BaseModel):
    """A section of params.yaml: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
