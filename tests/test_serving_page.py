"""The page in a real browser: click a test image, drop a picture, tell the truth, give a token; light and dark."""

from __future__ import annotations

import shutil
from dataclasses import replace
from urllib.parse import urlsplit

import mixed
import pytest
from gateways import GREEN, RED, RELATED, TASKS, YELLOW, by_colour, picture, serving
from images import encoded
from prometheus_client.parser import text_string_to_metric_families

from mtl import files
from mtl.config.params import Data
from mtl.data import paths
from mtl.serving import loading
from mtl.serving.loading import Loaded
from mtl.sources import generated
from mtl.tasks.spec import TaskSpec

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]
SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a page that must ask nobody but its own server, and must not fail; returns it."""
    pages, asked, errors = [], [], []

    def opened(url: str, scheme: str = "light"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 760, "height": 760})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        pages.append((page, url))
        return page

    yield opened
    for page, url in pages:
        own = f"http://{urlsplit(url).netloc}/"
        assert [address for address in asked if not address.startswith((own, "blob:", "data:"))] == []
        page.close()
    assert errors == []


@pytest.fixture
def test_images(tmp_path, monkeypatch):
    """Generated images where the gateway looks for test images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generated, "TRAIN", 10)
    loaded = generated.load(Data(source="generated", path="data/external", validation=0), seed=0)
    files.write_array(paths.IMAGES / "x_test.npy", loaded.images["test"])


def models() -> dict[str, Loaded]:
    compute = {"model1": by_colour(0, 3, 8, 10), "model2": by_colour(1, 0, 1, 2)}
    return {name: Loaded(task, SHAPE, "1", compute[name], RELATED) for name, task in TASKS.items()}


def answers(page) -> list[list[str]]:
    page.wait_for_selector("#answers:not([hidden])")
    return [row.locator("td").all_inner_texts()[:2] for row in page.locator("#answers tbody tr").all()]


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 26)")])
def test_a_picture_is_answered_and_the_truth_told(open_page, test_images, scheme, paper):
    with serving(models) as (client, _, _):
        page = open_page(client.base + "/", scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        page.wait_for_selector("#samples button")
        assert page.locator("#samples button").count() == 12
        page.click("#samples button >> nth=0")
        assert [task for task, _ in answers(page)] == ["model1", "model2"]

        for colour, labels, words in (
            (YELLOW, ["cat", "animal"], "do not contradict"),
            (RED, ["cat", "vehicle"], "contradict each other: model1 says cat, model2 says vehicle"),
        ):
            content = encoded(picture(colour, shape=SHAPE)[0])
            page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": content})
            page.wait_for_selector(f"#verdict:has-text('{words}')")
            assert [label for _, label in answers(page)] == labels
        page.select_option("#truth", "cat")
        page.click("#feedback button")
        page.wait_for_selector("#judgement:has-text('model1 was right (100.0 % right so far), model2 was wrong')")

        page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": b"no picture"})
        page.wait_for_selector("#message:has-text('no PNG')")
        assert page.locator("#answers").is_hidden()


def test_an_answer_that_is_not_the_own_models_says_so(open_page, test_images):
    def load() -> dict[str, Loaded]:
        related = RELATED.model_copy(update={"answer": {"model2": "derived"}})
        return {name: replace(model, related=related) for name, model in models().items()}

    with serving(load) as (client, _, _):
        page = open_page(client.base + "/")
        content = encoded(picture(RED, shape=SHAPE)[0])
        page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": content})
        page.wait_for_selector("#verdict:has-text('model2 says vehicle')")
        assert answers(page) == [["model1", "cat"], ["model2 (derived)", "animal"]]


def test_a_picture_can_be_dropped(open_page, test_images):
    with serving(models) as (client, _, _):
        page = open_page(client.base + "/")
        content = list(encoded(picture(GREEN, shape=SHAPE)[0]))
        data = page.evaluate_handle(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "p.png", { type: "image/png" }));
              return data;
            }""",
            content,
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": data})
        assert answers(page) == [["model1", "ship"], ["model2", "animal"]]


def test_the_page_asks_for_the_token(open_page, test_images):
    with serving(models, token="s3cret") as (client, _, _):
        page = open_page(client.base + "/")
        page.wait_for_selector("#message:has-text('bearer token')")
        page.fill("#token", "s3cret")
        page.click("#authorisation button")
        page.wait_for_selector("#samples button")
        page.click("#samples button >> nth=0")
        assert len(answers(page)) == 2


def test_the_documents_show_every_route(open_page, test_images):
    with serving(models) as (client, _, _):
        page = open_page(client.base + "/docs")
        page.wait_for_selector(".opblock")
        shown = page.locator(".opblock-summary-path").all_inner_texts()
        assert "/{task}/invocations" in [text.replace("\u200b", "") for text in shown]


def test_of_several_columns_the_truth_is_told_by_task_and_in_part(open_page):
    def load() -> dict[str, Loaded]:
        tasks = {"garment": ("label", ("shirt", "coat")), "for_kids": ("kids", ("false", "true"))}
        specs = [
            TaskSpec(name=task, columns=(column,), names=names, groups={n: n for n in names}, frequencies=(0.5, 0.5))
            for task, (column, names) in tasks.items()
        ]
        return {spec.name: Loaded(spec, SHAPE, "1", by_colour(0, 0, 1, 2)) for spec in specs}

    with serving(load) as (client, _, _):
        page = open_page(client.base + "/")
        content = encoded(picture(RED, shape=SHAPE)[0])
        page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": content})
        assert answers(page) == [["garment", "shirt"], ["for_kids", "false"]]
        assert page.locator("#truth").is_hidden()
        page.select_option("#truths select[name=for_kids]", "true")
        page.click("#feedback button")
        page.wait_for_selector("#judgement:has-text('for_kids was wrong')")
        assert "garment" not in page.inner_text("#judgement")


def test_an_answer_of_each_kind_is_shown_and_its_truth_told(open_page, tensorflow, tmp_path, monkeypatch):
    monkeypatch.chdir(mixed.write(tmp_path))
    models = loading.from_folder(paths.MODELS)

    def told(client) -> dict:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {s.labels["task"]: s.value for f in families if f.name == "mtl_feedback_answers" for s in f.samples}

    with serving(lambda: models) as (client, _, _):
        page = open_page(client.base + "/")
        page.click("#samples button >> nth=1")
        assert answers(page) == [["flaws", "dent"], ["shape", "disc"], ["size", "100 mm"]]
        rows = [row.locator("meter").count() for row in page.locator("#answers tbody tr").all()]
        assert rows == [2, 1, 0]
        flaws = page.locator("#answers tbody tr >> nth=0").locator("div").all_inner_texts()
        assert [text.split()[-1] for text in flaws] == ["dent", "scratch"]

        # Nothing is told of the tasks that are left alone, and no box at all is not the same as none of them.
        page.fill("#truths input[name=size]", "97.5")
        page.click("#feedback button")
        page.wait_for_selector("#judgement:has-text('size was off by 2.5 mm (2.5 mm on average so far)')")
        assert told(client) == {"size": 1}
        page.check("#truths input[name=flaws][value=dent]")
        page.check("#truths input[name=flaws][value='']")
        assert not page.is_checked("#truths input[name=flaws][value=dent]")
        page.select_option("#truths select[name=shape]", "disc")
        page.click("#feedback button")
        page.wait_for_selector("#judgement:has-text('flaws was wrong (0.0 % right so far), shape was right')")
        assert told(client) == {"flaws": 1, "shape": 1, "size": 1}

        page.click("#samples button >> nth=2")
        page.wait_for_selector("#answers:has-text('200 mm')")
        assert answers(page)[0] == ["flaws", "none"]
        assert page.input_value("#truths input[name=size]") == ""
        assert not page.is_checked("#truths input[name=flaws][value='']")
