"""Memory of old models after a reload."""

from __future__ import annotations

import asyncio
import gc

import pytest
from gateways import SHAPE, TASKS

from mtl.errors import UserError
from mtl.serving import loading, server
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.loading import Loaded
from mtl.serving.metrics import Metrics


def graphs() -> int:
    """Count the graphs of functions that are alive."""
    from tensorflow.python.framework.func_graph import FuncGraph

    gc.unfreeze()
    gc.collect()
    return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())


def silu() -> dict[str, Loaded]:
    """A tiny model with SiLU as a layer and as the activation of one."""
    from keras import Input, Model, layers

    inputs = Input(SHAPE, dtype="uint8")
    x = layers.Dense(2, activation="silu")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    outputs = layers.Dense(2, activation="softmax")(layers.Activation("silu")(x))
    return loading.compile_models({"model2": Model(inputs, outputs)}, TASKS, "1")


@pytest.mark.slow
def test_no_graph_survives_twenty_reloads(tensorflow, monkeypatch):
    """Graphs of replaced models and of refused models are freed, but for the last refused one."""
    monkeypatch.setattr(loading, "SIZES", (1,))

    async def main() -> list[int]:
        refuse = False

        def load() -> dict[str, Loaded]:
            models = silu()
            if refuse:
                raise UserError("models/model1.keras: broken")
            return models

        gateway = Gateway(load, Limits(), Metrics(), server.release_memory)
        await gateway.start()
        alive = [graphs()]
        for refuse in (False, True, False, True):
            for _ in range(5):
                assert await gateway.reload() != refuse
            alive.append(graphs())
        await gateway.close()
        return alive

    alive = asyncio.run(main())
    assert alive[0] == alive[1] == alive[3]
    assert max(alive) <= 2 * alive[0]
