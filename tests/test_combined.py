"""Combined answers: their weights, the verdict on them, and the option `answer` wherever a task is answered."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import gateways
import mixed
import numpy as np
import pytest
import requests
from conftest import Project
from gateways import RELATED, logged, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from images import encoded
from stars import KIND
from test_dag import ran

from mtl import evaluation, files
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.networks import saving
from mtl.release.predictor import Predictor
from mtl.serving import loading
from mtl.serving.loading import Loaded
from mtl.tasks import combining, kinds, relations
from mtl.tasks.answers import Answers
from mtl.tasks.relations import Relations
from mtl.tasks.scores import normalise
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

SPECS = {
    "classes": TaskSpec(name="t", columns=("c",), names=("a", "b", "c"), frequencies=(0.4, 0.3, 0.3)),
    "multilabel": TaskSpec(name="t", kind="multilabel", columns=("c",), names=("a", "b"), frequencies=(0.5, 0.5)),
    "value": TaskSpec(name="t", kind="value", columns=("c",), names=("c",), transform="log", mean=1.0, deviation=0.5),
}
BASE = TaskSpec(name="base", columns=("b",), names=("u", "v", "w"), frequencies=(0.4, 0.3, 0.3))


def answers_of(kind: str, seed: int, noise: float = 1.0, gaps: float = 0.2) -> tuple[Answers, Answers]:
    """A model's answers to a task of a kind with gaps, and its base's; both better than nothing."""
    rng, count, spec = np.random.default_rng(seed), 60, SPECS[kind]
    of_base = rng.integers(3, size=count)
    base = normalise(np.exp(2 * np.eye(3)[of_base] + noise * rng.normal(size=(count, 3)))).astype(np.float32)
    if kind == "classes":
        labels = np.where(rng.random(count) < 0.8, of_base, rng.integers(3, size=count))
        outputs = normalise(np.exp(2 * np.eye(3)[labels] + noise * rng.normal(size=(count, 3))))
    elif kind == "multilabel":
        labels = (rng.random((count, 2)) < np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])[of_base]).astype(np.uint8)
        outputs = 1 / (1 + np.exp(1 - 2.0 * labels - noise * rng.normal(size=labels.shape)))
    else:
        labels = np.exp(1.0 + 0.5 * (of_base - 1.0 + 0.3 * rng.normal(size=count)))
        outputs = labels[:, None] * np.exp(0.2 * noise * rng.normal(size=(count, 1)))
    known = rng.random(labels.shape) >= gaps
    known[:3] = True
    own = Answers(spec, labels, outputs.astype(np.float32), "auto", known)
    return own, Answers(BASE, of_base, base)


def related(own: Answers, base: Answers, **asked: str) -> Relations:
    """The relations, learned and chosen on the same examples."""
    targets = {"base": Targets(base.labels, base.is_known), "t": Targets(own.labels, own.is_known)}
    learned = relations.learn({"base": base.task, "t": own.task}, targets)
    return relations.choose(learned, {"base": base, "t": own}, asked)


@pytest.mark.parametrize("kind", SPECS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_combined_answer_is_either_at_the_ends_and_no_worse_between(kind, seed):
    own, base = answers_of(kind, seed)
    implied = relations.derive(related(own, base, t="derived").of("base", "t"), base.outputs, own.task)
    for outputs, weights in ((own.outputs, (1, 0)), (implied, (0, 1))):
        combined = combining.combine(own.task, own.outputs, implied, weights)
        expected = normalise(outputs) if kind == "classes" else outputs
        np.testing.assert_allclose(combined, expected, rtol=1e-5, atol=1e-9)
    weights = combining.fit_weights(own, implied)
    assert min(weights) >= 0
    assert kind != "value" or sum(weights) == pytest.approx(1)
    assert combining.fit_weights(own, implied) == weights

    def loss(outputs: np.ndarray) -> float:
        return kinds.find(kind).loss_of(replace(own, outputs=outputs).judged())

    combined = combining.combine(own.task, own.outputs, implied, weights)
    assert loss(combined) <= min(loss(own.outputs), loss(implied)) + 1e-6


def test_weights_are_those_that_made_the_labels():
    own, base = answers_of("classes", 0, gaps=0.0)
    wide = replace(own, labels=np.tile(own.labels, 50), outputs=np.tile(own.outputs, (50, 1)), known=None)
    rng, derived = np.random.default_rng(1), np.tile(base.outputs, (50, 1))
    p = combining.combine(own.task, wide.outputs, derived, (0.7, 1.6))
    labels = np.array([rng.choice(3, p=row) for row in p])
    assert combining.fit_weights(replace(wide, labels=labels), derived) == pytest.approx((0.7, 1.6), abs=0.15)


@pytest.mark.parametrize("kind", [*SPECS, "stars"])
def test_the_losses_of_a_kind_have_its_loss_as_their_mean(kind):
    if kind == "stars":
        task = TaskSpec(name="t", kind="stars:KIND", columns=("c",), names=("s",), mean=3.0, options={"most": 5})
        answers, module = Answers(task, np.array([1.0, 5.0]), np.array([[2.0], [4.5]])), KIND
    else:
        answers, module = answers_of(kind, 0, gaps=0.0)[0], kinds.find(kind)
    losses = module.losses(answers)
    assert losses.shape == (len(answers.labels),)
    assert losses.mean() == pytest.approx(module.loss_of(answers))
    gap = np.arange(len(losses)) == 1
    known = np.broadcast_to(~gap.reshape(-1, *[1] * (answers.labels.ndim - 1)), answers.labels.shape)
    np.testing.assert_array_equal(np.isnan(module.losses(replace(answers, known=known))), gap)


@pytest.mark.parametrize("kind", SPECS)
def test_the_verdict_compares_the_combined_answer_with_both(kind):
    chosen = related(*answers_of(kind, 0), t="combined")
    own, base = answers_of(kind, 1)
    verdict = evaluation.judge({"base": base, "t": own}, chosen, {"base": 50, "t": 7})
    combined = verdict["combined"]["t"]
    module, known = kinds.find(kind), own.has_label
    primary = next(iter(module.SCORES))
    assert (combined["from"], combined["own_weight"], combined["derived_weight"]) == ("base", *chosen.weights["t"])
    assert combined["multiply_adds"] == {"own": 7, "derived": 50, "combined": 57}
    outputs = {"base": base.outputs, "t": own.outputs}
    both = replace(own, outputs=relations.combined(chosen, outputs, own.task))
    assert combined[primary] == pytest.approx(module.judge(both.judged())[primary])
    implied = relations.derive(chosen.of("base", "t"), base.outputs, own.task)
    for key, other in (("over_own", own), ("over_derived", replace(own, outputs=implied))):
        figures = combined[key]
        assert figures["gain"] == pytest.approx((module.utility(both) - module.utility(other))[known].mean())
        assert figures["nll_gain"] == pytest.approx((module.losses(other) - module.losses(both))[known].mean())
        for name in ("gain", "nll_gain"):
            assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]
        assert 0 < figures["p_value"] <= 1 and 0 < figures["nll_p_value"] <= 1
    assert verdict["tasks"] == evaluation.judge({"base": base, "t": own})["tasks"]  # the own model's, whatever `answer`
    assert "combined" not in evaluation.judge({"t": own}, chosen)


def test_what_is_asked_for_is_made_even_where_it_is_hardly_worth_it_and_nothing_else_changes():
    own, base = answers_of("classes", 0)
    poor = replace(base, outputs=np.full_like(base.outputs, 1 / 3))
    assert "t" not in related(own, poor).derived
    chosen = related(own, poor, t="combined")
    assert (chosen.derived["t"], chosen.answer, "t" in chosen.weights) == ("base", {"t": "combined"}, True)
    assert chosen.among(["t"]).answer == chosen.among(["t"]).weights == {}
    nothing = replace(own, known=np.zeros(own.labels.shape, bool))
    learned = relations.learn(
        {"base": BASE, "t": own.task},
        {"base": Targets(base.labels, base.is_known), "t": Targets(own.labels, own.is_known)},
    )
    unfitted = relations.choose(learned, {"base": base, "t": nothing}, {"t": "derived"})
    assert (unfitted.derived["t"], "t" in unfitted.weights) == ("base", False)
    with pytest.raises(UserError, match=r"tasks.t.answer: combined"):
        relations.choose(learned, {"base": base, "t": nothing}, {"t": "combined"})
    apart = {"base": Targets(base.labels, own.is_known), "t": Targets(own.labels, ~own.is_known)}
    with pytest.raises(UserError, match=r"tasks.t.answer: derived") as caught:
        relations.choose(
            relations.learn({"base": BASE, "t": own.task}, apart), {"base": base, "t": own}, {"t": "derived"}
        )
    assert "\n" not in str(caught.value)


def test_the_bounds_of_a_calibrated_value_are_those_of_the_answer_that_is_given():
    own, base = answers_of("value", 0, noise=0.3)
    calibrated = replace(own, task=own.task.model_copy(update={"residuals": (-0.1, 0.1)}))
    assert related(calibrated, base).residuals == {}
    asked = related(calibrated, base, t="derived")
    meant = asked.meaning(calibrated.task)
    answers = relations.answered(asked, {"base": base.outputs, "t": own.outputs}, own.task)
    link, known = kinds.find("value").link, own.has_label
    errors = (link(own.task, own.labels) - link(own.task, answers[:, 0]))[known]
    low, high = meant.residuals
    assert np.mean((low <= errors) & (errors <= high)) == pytest.approx(0.95, abs=0.04)
    assert meant.model_copy(update={"residuals": (-0.1, 0.1)}) == calibrated.task
    assert asked.among(["t"]).residuals == {}


def test_relations_of_the_version_before_have_no_weights():
    now = related(*answers_of("multilabel", 0), t="combined")
    content = now.model_dump(mode="json")
    assert relations.read(json.loads(now.model_dump_json())) == now
    before = relations.read({key: content[key] for key in ("pairs", "derived", "matrix")})
    assert before == now.model_copy(update={"weights": {}, "answer": {}, "residuals": {}})


# The tasks of `mixed`, answered from the shape: numbers by hand, as nothing is learned there.
ASKED = Relations(
    pairs=(
        relations.Relation(base="shape", target="flaws", functional=False, table=((0.9, 0.2), (0.1, 0.7))),
        relations.Relation(base="shape", target="size", functional=False, table=((-0.5,), (1.5,))),
    ),
    derived={"flaws": "shape", "size": "shape"},
    weights={"flaws": (0.6, 1.3), "size": (0.25, 0.75)},
)
OPTIONS = [{"flaws": "derived", "size": "combined"}, {"flaws": "combined", "size": "derived"}]


@pytest.mark.parametrize("answer", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_mtl_load_the_joint_pyfunc_and_the_gateway_answer_alike(tensorflow, tmp_path, monkeypatch, answer):
    from mtl.tracking import joint as pyfunc

    mixed.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = ASKED.model_copy(update={"answer": answer})
    for place in (paths.RELATIONS, paths.MODELS / "relations.json"):
        files.write_json(place, asked.model_dump(mode="json"))
    images = np.array(store.read_images("test"))
    outputs = {task: saving.read(paths.model_path(task)).predict(images, verbose=0) for task in mixed.TASKS}
    expected = {task: relations.answered(asked, outputs, spec) for task, spec in mixed.TASKS.items()}
    assert all(not np.allclose(expected[task], outputs[task], rtol=0.02) for task in answer)

    networks = {task: saving.read(paths.model_path(task)) for task in mixed.TASKS}
    predictions = Predictor(networks, mixed.TASKS, asked).predict(images)
    model = pyfunc.JointModel()
    model.load_context(SimpleNamespace(artifacts={"models": str(paths.MODELS)}))
    table = model.predict(None, images)
    spec = mixed.TASKS["flaws"]
    with serving(lambda: loading.from_folder(paths.MODELS)) as (client, _, _):
        for index, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
            body = client.post("/predict", data=encoded(image)).json()["answers"]
            assert {task: body[task].get("answer") for task in mixed.TASKS} == {"shape": None} | answer
            for task in mixed.TASKS:
                got = prediction.tasks[task].content
                assert got.keys() == body[task].keys()
                assert next(iter(got)) != "answer"
                assert got.get("answer") == body[task].get("answer")
            wanted = dict(zip(spec.names, expected["flaws"][index].tolist(), strict=True))
            assert prediction.tasks["flaws"].probabilities == pytest.approx(wanted, abs=1e-5)
            assert body["flaws"]["probabilities"] == pytest.approx(wanted, abs=1e-5)
            assert [table[f"flaws_{name}"][index] for name in spec.names] == pytest.approx(
                list(wanted.values()), abs=1e-5
            )
            truths = [name for name, least in zip(spec.names, spec.thresholds, strict=True) if wanted[name] >= least]
            assert body["flaws"]["labels"] == list(prediction.tasks["flaws"].names) == truths
            assert table["flaws"][index] == "|".join(truths)
            size = float(expected["size"][index, 0])
            assert [table["size"][index], prediction.tasks["size"].value, body["size"]["value"]] == pytest.approx(
                [size] * 3, rel=1e-5
            )
        for task, rows in expected.items():
            check_protocols(client, task, images, rows)


def check_protocols(client: requests.Session, task: str, images: np.ndarray, expected: np.ndarray) -> None:
    """Each protocol's route of a task gives these answers."""
    nested = {"instances": images.tolist()}
    for route in (f"/v1/models/{task}:predict", f"/{task}/invocations"):
        np.testing.assert_allclose(
            client.post(route, json=nested).json()["predictions"], expected, rtol=1e-4, atol=1e-5
        )
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    (output,) = client.post(f"/v2/models/{task}/infer", json={"inputs": [tensor]}).json()["outputs"]
    np.testing.assert_allclose(np.reshape(output["data"], expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", ["derived", "combined"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_the_pyfunc_computes_what_the_project_does(by, seed):
    from mtl.tracking import joint as pyfunc

    rng = np.random.default_rng(seed)
    for kind in SPECS:
        own, base = answers_of(kind, seed, noise=float(rng.uniform(0.2, 20)))
        asked = related(own, base, t=by)
        asked = asked.model_copy(update={"weights": {"t": (float(rng.uniform(0, 3)), float(rng.uniform(0, 3)))}})
        outputs = {"base": base.outputs, "t": own.outputs}
        np.testing.assert_allclose(
            pyfunc.answered(own.task.document(), outputs, json.loads(asked.model_dump_json())),
            relations.answered(asked, outputs, own.task),
            rtol=1e-5,
            atol=1e-7,
        )
        assert pyfunc.answered(own.task.document(), outputs, {}) is own.outputs
        alone = {"t": own.outputs}
        assert pyfunc.answered(own.task.document(), alone, asked.model_dump(mode="json")) is own.outputs


def test_contradictions_are_between_the_models_own_answers():
    asked = RELATED.model_copy(update={"answer": {"model2": "derived"}})

    def load() -> dict[str, Loaded]:
        return {name: replace(model, related=asked) for name, model in gateways.loaded().items()}

    with serving(load) as (client, _, _):
        answer = client.post("/predict", data=encoded(gateways.picture(gateways.RED)[0])).json()
        schema = client.get("/openapi.json").json()["components"]["schemas"]["JointAnswer"]
    assert answer["answers"]["model2"] == {"label": "animal", "probability": 1.0, "answer": "derived"}
    assert answer["contradiction"] and "model2 says vehicle" in answer["contradictions"][0]
    assert "answer" in schema["properties"]["answers"]["additionalProperties"]["properties"]


def test_without_the_bases_model_the_own_one_answers_and_the_log_says_so(tensorflow, tmp_path, monkeypatch):
    mixed.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    files.write_json(paths.RELATIONS, ASKED.model_copy(update={"answer": {"size": "combined"}}).model_dump(mode="json"))
    paths.model_path("shape").unlink()
    with logged() as lines:
        models = loading.from_folder(paths.MODELS)
    (line,) = [line for line in lines if "combined" in line]
    assert "size" in line and "shape" in line
    assert models["size"].related.answer == {}


@pytest.mark.slow
def test_the_option_retrains_nothing_and_the_verdict_on_the_task_stays(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
    verdict = json.loads((project.root / "metrics/main_evaluate.json").read_text())
    assert verdict["combined"]["model2"].keys() >= {"from", "acc", "nll", "over_own", "over_derived", "multiply_adds"}
    spent = verdict["combined"]["model2"]["multiply_adds"]
    assert 0 < spent["own"] < spent["combined"] == spent["own"] + spent["derived"]
    project.edit(lambda tree: tree["tasks"]["model2"].update(answer="combined"))
    assert ran(project.run("dvc", "repro").stdout) <= {"check_params", "derive_labels", "main_evaluate"}
    assert json.loads((project.root / "metrics/main_evaluate.json").read_text()) == verdict
    kept = relations.read(json.loads((project.root / "metrics/relations.json").read_text()))
    assert (kept.answer, kept.derived["model2"]) == ({"model2": "combined"}, "model1")
