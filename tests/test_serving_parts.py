"""The gateway's parts by themselves: pixels, batches, contradictions, feedback."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib

import numpy as np
import pytest
from conftest import regrouped, task_spec
from gateways import OF_CLASS, TASKS
from hypothesis import given
from hypothesis import strategies as st
from images import encoded, pixels

from mtl.errors import UserError
from mtl.serving import joint, metrics
from mtl.serving.batching import Batcher
from mtl.serving.feedback import Feedback
from mtl.serving.pixels import from_file, from_nested, from_numbers, parse_json
from mtl.serving.refusals import Refused
from mtl.tasks.kinds import classes
from mtl.tasks.relations import UNRELATED

SHAPE = (2, 3, 3)


@given(st.integers(1, 4), st.randoms(use_true_random=False))
def test_nested_lists_are_the_array_they_came_from(count, random):
    array = np.array([random.randrange(256) for _ in range(count * 18)], np.uint8).reshape(count, *SHAPE)
    body = json.dumps({"a": array.tolist(), "b": array.astype(float).tolist()}).encode()
    content = parse_json(body)
    for value in content.values():
        actual = from_nested(value, SHAPE)
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(actual, array)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=30,
)


@given(JSON, st.booleans())
def test_whatever_is_no_image_is_refused_in_one_line(value, fractions):
    with pytest.raises(Refused) as refused:
        from_nested(value, SHAPE, fractions)
    assert refused.value.status == 400
    assert "\n" not in str(refused.value)


@given(st.lists(st.integers(-3, 300) | st.floats(-3, 300), min_size=1, max_size=5))
def test_numbers_are_pixels_only_from_0_to_255(numbers):
    cut = np.trunc(np.array(numbers, float))
    if max(map(abs, numbers)) <= 1 and not np.array_equal(cut, numbers):
        with pytest.raises(Refused, match="fractions"):
            from_numbers(numbers, fractions=True)
    elif cut.min() >= 0 and cut.max() <= 255:
        np.testing.assert_array_equal(from_numbers(numbers, fractions=True), cut)
    else:
        with pytest.raises(Refused, match="from 0 to 255"):
            from_numbers(numbers, fractions=True)


def test_a_picture_becomes_an_image_of_the_models_size():
    image = pixels(0, 2, 3)
    np.testing.assert_array_equal(from_file(encoded(image), SHAPE, 100)[0], image)
    assert from_file(encoded(pixels(0, 40, 20), "jpeg"), SHAPE, 1000).shape == (1, *SHAPE)


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels."""
    content = encoded(np.zeros((1, 1, 3), np.uint8))
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize(
    ("content", "limit", "status", "message"),
    [
        (b"", 100, 400, "PNG"),
        (b"GIF89a" + bytes(50), 100, 400, "PNG"),
        (encoded(pixels(0, 64, 64))[:-2000], 10**6, 400, "not a whole image"),
        (encoded(pixels(0, 11, 10)), 100, 413, "10×11 pixels, more than 100"),
        (png_of(17_000, 17_000), 20_000_000, 413, "more than 20,000,000 pixels"),
    ],
)
def test_what_is_no_picture_is_refused(content, limit, status, message):
    with pytest.raises(Refused, match=message) as refused:
        from_file(content, SHAPE, limit)
    assert refused.value.status == status


def first_pixel(images: np.ndarray) -> np.ndarray:
    """A model whose answer tells which images it was asked about."""
    return images[:, 0, 0, :2].astype(np.float32)


def images_from(start: int, count: int) -> np.ndarray:
    images = np.zeros((count, *SHAPE), np.uint8)
    images[:, 0, 0, 0] = np.arange(start, start + count) % 256
    return images


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_everyone_gets_the_answer_to_their_own_images(sizes, largest):
    batches = []

    def compute(images):
        batches.append(len(images))
        return first_pixel(images)

    async def main():
        batcher = Batcher(compute, largest, 0.001, 1000)
        starts = np.cumsum([0, *sizes[:-1]])
        asked = [images_from(start, size) for start, size in zip(starts, sizes, strict=True)]
        answers = await asyncio.gather(*map(batcher, asked))
        await batcher.close()
        for images, answer in zip(asked, answers, strict=True):
            np.testing.assert_array_equal(answer, first_pixel(images))

    asyncio.run(main())
    assert max(batches) <= largest
    assert sum(batches) == sum(sizes)


def test_requests_that_wait_while_a_batch_is_computed_are_the_next_batch():
    go, started, batches = threading.Event(), threading.Event(), []

    def compute(images):
        batches.append(len(images))
        started.set()
        assert go.wait(10)
        return first_pixel(images)

    async def main():
        batcher = Batcher(compute, 64, 0.001, 1000)
        first = asyncio.create_task(batcher(images_from(0, 1)))
        await asyncio.to_thread(started.wait, 10)
        rest = [asyncio.create_task(batcher(images_from(i, 1))) for i in range(1, 8)]
        await asyncio.sleep(0)
        assert batcher.waiting == 7
        go.set()
        await asyncio.gather(first, *rest)
        # One client alone after a crowd: its batch does not wait for those who are gone.
        await batcher(images_from(9, 1))
        await batcher.close()

    asyncio.run(main())
    assert batches == [1, 7, 1]


def test_a_full_queue_refuses_instead_of_growing_and_closing_answers_the_rest():
    go = threading.Event()

    def compute(images):
        assert go.wait(10)
        return first_pixel(images)

    async def main():
        batcher = Batcher(compute, 4, 0.001, 10)
        waiting = [asyncio.create_task(batcher(images_from(0, 4))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await batcher(images_from(0, 8))
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        go.set()
        await batcher.close()
        assert [len(answer) for answer in await asyncio.gather(*waiting)] == [4, 4]

    asyncio.run(main())


def test_a_batch_that_fails_fails_alone():
    def compute(images):
        if images[0, 0, 0, 0] == 1:
            raise ValueError("broken")
        return first_pixel(images)

    async def main():
        batcher = Batcher(compute, 4, 0.001, 10)
        with pytest.raises(ValueError, match="broken"):
            await batcher(images_from(1, 1))
        assert len(await batcher(images_from(2, 1))) == 1
        await batcher.close()

    asyncio.run(main())


def probabilities(task: str, label: str) -> np.ndarray:
    return np.array([[float(name == label) for name in TASKS[task].names]], np.float32)


@pytest.mark.parametrize("one", TASKS["model1"].names)
@pytest.mark.parametrize("two", TASKS["model2"].names)
def test_a_contradiction_is_a_group_that_the_class_is_not_in(one, two):
    outputs = {"model1": probabilities("model1", one), "model2": probabilities("model2", two)}
    answer = joint.answer(TASKS, outputs, regrouped(*TASKS.values()))
    assert answer["contradiction"] == (OF_CLASS[one] != two)
    assert answer["contradictions"] == ([f"model1 says {one}, model2 says {two}"] if answer["contradiction"] else [])
    assert answer["answers"]["model2"] == {"label": two, "probability": 1.0}


def test_whether_models_contradict_each_other_is_null_where_it_is_not_known():
    outputs = {"model1": probabilities("model1", "cat"), "model2": probabilities("model2", "vehicle")}
    answer = joint.answer(TASKS, outputs, UNRELATED)
    assert answer["contradiction"] is None
    assert answer["contradictions"] == []


def test_what_is_not_known_is_in_no_rate():
    counted = metrics.Metrics()
    for contradiction in (True, None, None, False):
        counted.observe_joint(contradiction)
    assert counted.registry.get_sample_value("mtl_joint_answers_total") == 4
    assert counted.registry.get_sample_value("mtl_contradiction_rate") == 0.5


def test_feedback_outlives_the_server_and_the_last_word_counts(tmp_path):
    first = Feedback(tmp_path / "f.db")
    identities = [first.remember({"model1": "cat", "model2": "animal"}) for _ in range(2)]
    first.close()
    second = Feedback(tmp_path / "f.db")
    assert second.record_truth(identities[0], {"model1": "dog", "model2": "animal"}) == {
        "model1": False,
        "model2": True,
    }
    assert second.record_truth(identities[1], joint.truth(TASKS, {"class": "cat"})) == {"model1": True, "model2": True}
    assert second.standing().accuracy == {"model1": (0.5, 2), "model2": (1.0, 2)}
    second.record_truth(identities[0], joint.truth(TASKS, {"class": "cat"}))
    assert second.standing().accuracy == {"model1": (1.0, 2), "model2": (1.0, 2)}
    assert second.record_truth("nobody", {"model1": "cat"}) is None
    second.close()


def test_feedback_keeps_a_bounded_number_of_answers(tmp_path):
    feedback = Feedback(tmp_path / "f.db", capacity=3)
    identities = [feedback.remember({"model1": "cat"}) for _ in range(5)]
    judged = [feedback.record_truth(identity, {"model1": "cat"}) for identity in identities]
    assert judged == [None, None, *[{"model1": True}] * 3]
    feedback.close()


def test_a_file_that_is_no_database_is_an_error_in_one_line(tmp_path):
    (tmp_path / "f.db").write_bytes(b"something else" * 100)
    with pytest.raises(UserError, match="--feedback"):
        Feedback(tmp_path / "f.db")


def test_drift_is_0_where_predictions_are_as_frequent_as_labels_and_1_where_they_never_meet():
    spec = task_spec("a", ("no", "yes"))
    quarter = spec.model_copy(update={"frequencies": (0.25, 0.75)})
    assert classes.drift(quarter, classes.ideal(spec, np.array([0, 1, 1, 1]))) == pytest.approx(0)
    never = spec.model_copy(update={"frequencies": (0.0, 1.0)})
    assert classes.drift(never, classes.ideal(spec, np.array([0, 0]))) == pytest.approx(1)
    counted = metrics.Metrics()
    counted.observer(spec, lambda: 0)
    assert np.isnan(counted.registry.get_sample_value("mtl_prediction_drift", {"task": "a"}))
