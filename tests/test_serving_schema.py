"""The gateway keeps to its own OpenAPI document, whatever a client makes of it."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from gateways import loaded, serving
from hypothesis import HealthCheck, settings
from schemathesis.checks import positive_data_acceptance

from mtl.serving import application
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.metrics import Metrics

LIMITS = Limits(batch=2)


def document() -> dict:
    """Make /openapi.json: tests are generated from it before a server is started."""
    gateway = Gateway(loaded, LIMITS, Metrics())
    asyncio.run(gateway.start())
    return application.build(gateway, Feedback(":memory:")).openapi()


# MLflow answers these with text that it calls JSON, and so do we.
schema = schemathesis.openapi.from_dict(document()).exclude(path=["/ping", "/health", "/version"])


@pytest.fixture(scope="module")
def client():
    with serving(limits=LIMITS) as (client, _, _):
        assert client.get("/openapi.json").json() == schema.raw_schema
        yield client


# An id and a class that fit their schema are still unknown, and bytes are hardly ever a PNG.
@schema.parametrize()
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case, client):
    case.call_and_validate(base_url=client.base, excluded_checks=[positive_data_acceptance], timeout=30)
