"""The study: which networks an arrangement trains, and its pipeline on small images with three tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CIFAR10, ROOT, Project, task_spec
from ruamel.yaml import YAML
from scipy.stats import entropy
from test_dag import NO_BYTES, imported, room, search

from mtl.config.reading import read_as
from mtl.errors import UserError
from mtl.study import arrangements
from mtl.study.arrangements import HELD_OUT, Network, Question, Study
from mtl.tasks.answers import Answers
from mtl.tasks.columns import SPLITS
from mtl.tasks.scores import normalise
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets, columns

OF_CLASS = {
    "kind": {"cat": "cat", "dog": "dog", "ship": "ship"},
    "group": {"cat": "animal", "dog": "animal", "ship": "vehicle"},
    "side": {"cat": "left", "dog": "right", "ship": "left"},
}


def asked(*names: str) -> dict[str, Question]:
    """Tasks on three images: a cat, a dog and a ship."""
    tasks = {}
    for name in names:
        classes = tuple(dict.fromkeys(OF_CLASS[name].values()))
        labels = np.array([classes.index(OF_CLASS[name][c]) for c in ("cat", "dog", "ship")], np.uint8)
        tasks[name] = Question(task_spec(name, OF_CLASS[name]), dict.fromkeys(SPLITS, Targets(labels, labels < 9)))
    return tasks


def test_arrangements_see_the_same_number_of_images():
    tasks = asked("kind", "group", "side")
    assert arrangements.networks("independent", tasks, 4) == [Network((t,), 4) for t in tasks]
    for name in ("shared", "uncertainty"):
        assert arrangements.networks(name, tasks, 4) == [Network(("kind", "group", "side"), 12)]
    assert arrangements.networks("derived", tasks, 4) == [Network(("kind",), 12)]
    assert arrangements.networks("derived", asked("group", "side"), 4) == []
    with pytest.raises(UserError, match="no arrangement 'alone'; known: independent, shared, uncertainty, derived"):
        arrangements.networks("alone", tasks, 4)


def answered(tasks: dict[str, Question], outputs: dict[str, np.ndarray]) -> dict[str, Answers]:
    """The answers of an arrangement that is not calibrated, whose outputs are of the images of one split."""
    twice = {task: np.concatenate([p, p]) for task, p in outputs.items()}  # `asked` has the same images in each split
    fitted = arrangements.halves(study_yaml(calibrate="none"), tasks, twice)
    return arrangements.answers(tasks, fitted)


def test_derived_answers_are_group_sums_and_what_nobody_implies_is_left_out():
    tasks = asked("kind", "group", "side")
    p = np.array([[0.3, 0.3, 0.4], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    told = arrangements.judge(answered(tasks, {"kind": p}))
    assert {task: got["acc"] for task, got in told.items()} == {"kind": 2 / 3, "group": 1.0, "side": 1.0}
    assert told["group"]["nll"] == pytest.approx(-np.log([0.6, 0.9, 0.6]).mean())
    assert set(answered(tasks, {"group": p[:, :2]})) == {"group"}
    assert answered(tasks, {}) == {}


def study_yaml(calibrate: str = "temperature", **changes) -> Study:
    tree = YAML(typ="safe").load(ROOT / "study/params.yaml")
    tree["recipe"]["calibrate"] = calibrate
    return Study.model_validate_json(json.dumps(tree | changes), strict=True)


def held_out(seed: int = 0, count: int = 400) -> tuple[dict[str, Question], dict[str, np.ndarray]]:
    """Two tasks, of which one implies the other, and answers that are mostly right and not as sure as that."""
    rng, tasks, outputs = np.random.default_rng(seed), asked("kind", "group"), {}
    labels = rng.integers(3, size=count)
    for name, of_class in (("kind", np.arange(3)), ("group", np.array([0, 0, 1]))):
        own = of_class[labels].astype(np.uint8)
        tasks[name] = labelled(tasks[name], own)
        outputs[name] = normalise(np.exp(np.eye(own.max() + 1)[own] + 0.6 * rng.normal(size=(count, own.max() + 1))))
    return tasks, outputs


def labelled(question: Question, labels: np.ndarray) -> Question:
    """The question with other labels on the held-out images: a quarter of these is for validation."""
    split = zip(HELD_OUT, np.split(labels, [len(labels) // 4]), strict=True)
    targets = {name: Targets(part, np.ones(len(part), bool)) for name, part in split}
    return Question(question.task, dict(question.targets) | targets)


def test_calibrated_and_combined_answers_are_better_and_their_accuracy_stays():
    tasks, outputs = held_out()
    judged = {}
    for calibrate in ("none", "temperature"):
        study = study_yaml(calibrate)
        fitted, of_kind = (arrangements.halves(study, tasks, some) for some in (outputs, {"kind": outputs["kind"]}))
        judged[calibrate] = arrangements.judge(arrangements.answers(tasks, fitted))
        derived = arrangements.judge(arrangements.answers(tasks, of_kind))["group"]
        combined = arrangements.judge(arrangements.combined(tasks, fitted))
        assert set(combined) == {"group"}  # nothing implies `kind`
        assert combined["group"]["nll"] < min(judged[calibrate]["group"]["nll"], derived["nll"])
        assert arrangements.combined(tasks, of_kind) == {}
    for task in tasks:
        assert judged["temperature"][task]["acc"] == judged["none"][task]["acc"]
        assert judged["temperature"][task]["nll"] < judged["none"][task]["nll"]


def test_nothing_is_judged_on_what_it_was_fitted_on():
    tasks, outputs = held_out()
    even = np.arange(400) % 2 == 0
    changed = {}
    for name, question in tasks.items():
        labels = question.held_out.labels.copy()
        labels[even] = np.roll(labels[even], 1)
        changed[name] = labelled(question, labels)
    for of in (arrangements.answers, arrangements.combined):
        one, other = (of(some, arrangements.halves(study_yaml(), some, outputs)) for some in (tasks, changed))
        for task in one:
            np.testing.assert_array_equal(one[task].outputs[even], other[task].outputs[even])
            assert not np.array_equal(one[task].outputs[~even], other[task].outputs[~even])


def test_a_half_without_a_class_calibrates_nothing_and_says_so(capsys):
    tasks, outputs = held_out(count=2)
    fitted = arrangements.halves(study_yaml(), tasks, outputs)
    assert "kind: not calibrated" in capsys.readouterr().out
    np.testing.assert_array_equal(arrangements.answers(tasks, fitted)["kind"].outputs, outputs["kind"])


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("mirror", [False, True])
def test_each_head_is_averaged_over_both_views_as_in_the_finished_model(mirror):
    import keras

    from mtl.networks import catalog, inference

    images = np.random.default_rng(0).integers(256, size=(6, 8, 8, 3), dtype=np.uint8)
    price = TaskSpec(name="price", kind="value", columns=("p",), names=("p",), mean=2.0, deviation=0.5, transform="log")
    specs, heads = [asked("kind")["kind"].task, price], (Head(3), Head(1, kind="value"))
    recipe = study_yaml().recipe.model_copy(
        update={"options": {"widths": [4], "heads": [3, 1]}, "precision": "float32"}
    )
    network = inference.plain(catalog.build(recipe, (8, 8, 3), 4, images, ["classes", "value"]))
    outputs = inference.predict(inference.views(network, mirror), images)
    assert outputs.shape == (6, 1 + mirror, 4)
    for spec, part in zip(specs, columns(heads), strict=True):
        head = keras.Model(network.inputs, network.outputs[0][:, part])
        expected = inference.predict(inference.finish(head, spec, mirror), images)
        np.testing.assert_allclose(inference.averaged(spec, outputs[:, :, part]), expected, rtol=1e-5)


def test_a_loss_counts_in_units_of_the_constant_answers():
    study = study_yaml(loss_weights={"group": 0.5})
    weights = arrangements.weights(study, asked("kind", "group"))
    assert weights["kind"] == pytest.approx(1 / np.log(3))
    # `group` is two animals and a vehicle, and task_spec says that its names are equally frequent.
    assert weights["group"] == pytest.approx(0.5 / np.log(2))
    with pytest.raises(UserError, match="loss_weights: there is no task 'group'; known: kind"):
        arrangements.weights(study, asked("kind"))


def test_kinds_are_mixed_and_a_gap_beside_other_tasks_has_no_weight():
    price = TaskSpec(name="price", kind="value", columns=("p",), names=("p",), mean=2.0, deviation=0.5)
    targets = Targets(np.array([1.5, 2.5, 0.0]), np.array([True, True, False]))
    tasks = asked("kind") | {"price": Question(price, dict.fromkeys(SPLITS, targets))}
    study = study_yaml()
    assert arrangements.weights(study, tasks)["price"] == pytest.approx(1)
    kind, value = arrangements.of_network(study, Network(("kind", "price"), 1), tasks)
    assert (kind.kind, kind.gaps, value.kind, value.gaps) == ("classes", False, "value", True)
    (alone,) = arrangements.of_network(study, Network(("price",), 1), tasks)
    assert (alone.weight, alone.gaps) == (1.0, False)  # the unknown example is left out there
    judged = arrangements.judge(answered(tasks, {"price": np.array([[1.5], [2.5], [9.0]])}))
    assert judged == {"price": {"score": 1.0, "skill": 1.0}}


@pytest.mark.usefixtures("tensorflow")
def test_learned_weights_are_those_of_kendall():
    from mtl.networks import catalog
    from mtl.tasks import heads as of_heads
    from mtl.training import losses

    recipe = study_yaml().recipe.model_copy(update={"label_smoothing": 0.0, "precision": "float32"})
    recipe = recipe.model_copy(update={"options": {"widths": [4], "heads": [3, 1], "uncertainty": True}})
    images = np.zeros((4, 8, 8, 3), np.uint8)
    model = catalog.build(recipe, (8, 8, 3), 4, images, ["classes", "value"])
    heads = (Head(3), Head(1, kind="value"))
    loss = losses.summed(recipe, heads, model)
    (layer,) = [layer for layer in model.layers if hasattr(layer, "log_variances")]
    assert any(variable is layer.log_variances for variable in model.trainable_variables)
    layer.log_variances.assign([0.3, -0.2])
    targets = of_heads.encode(np.array([[0, 1.0], [2, -0.5]], np.float32), heads)
    outputs = np.array([[0.7, 0.2, 0.1, 0.5], [0.1, 0.1, 0.8, 0.0]], np.float32)
    nll, squared = -np.log([0.7, 0.8]), np.array([0.25, 0.25])
    expected = np.exp(-0.3) * nll + 0.15 + np.exp(0.2) / 2 * squared - 0.1
    np.testing.assert_allclose(loss.call(targets, outputs), expected, rtol=1e-5)


def test_the_recipe_has_heads_for_several_tasks_alone():
    study, tasks = study_yaml(), asked("kind", "group")
    assert "heads" not in arrangements.recipe(study, Network(("kind",), 3), tasks).options
    shared = arrangements.recipe(study, Network(("kind", "group"), 16), tasks)
    assert (shared.options["heads"], shared.epochs) == ([3, 2], 16)
    assert shared.optimizer == study.recipe.optimizer


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", "seeds: one of them is listed twice"),
        ("[independent, shared, uncertainty, derived]", "[independent, alone]", "arrangements.1: "),
        ("batch_size: 512", "batch_size: 512\n  keep: best", "recipe: keep must be 'last' here"),
        ("calibrate: temperature", "calibrate: platt", "recipe.calibrate: "),
        ("[independent, shared, uncertainty, derived]", "[independent, combined]", "arrangements.1: "),
        ("loss_weights: {}", "loss_weights: {model2: 0}", "loss_weights.model2: "),
    ],
)
def test_wrong_parameters_are_one_line(tmp_path, before, after, message):
    text = (ROOT / "study/params.yaml").read_text()
    assert before in text
    (tmp_path / "params.yaml").write_text(text.replace(before, after))
    with pytest.raises(UserError) as caught:
        read_as(Study, tmp_path / "params.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["train", "summary"])
def test_all_that_a_stage_imports_lies_in_what_it_names(stage):
    declared = YAML(typ="safe").load(ROOT / "study/dvc.yaml")["stages"][stage]["deps"]
    named = {Path(dep.removeprefix("src/mtl/")).with_suffix("") for dep in declared if dep.startswith("src/")}
    own = ROOT / "src/mtl/study" / f"{stage}.py"
    for module in {own, *imported(own, set())}:
        path = module.relative_to(ROOT / "src/mtl").with_suffix("")
        if room(module) not in NO_BYTES | {"__init__"} and path.name != "__init__":
            assert any(path.is_relative_to(name) for name in named), path


@pytest.mark.slow
def test_bytecode_changes_nothing_that_the_study_names(studied, tmp_path):
    project = studied.copy(tmp_path / "p")
    project.environment = studied.environment | {"PYTHONPATH": str(project.root / "src")}
    project.run(sys.executable, "-m", "compileall", "-q", str(project.root / "src/mtl"))
    assert list((project.root / "src/mtl").rglob("__pycache__"))
    status = inside(project).run("dvc", "status")
    assert "up to date" in status.stdout


@pytest.fixture(scope="module")
def studied(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three tasks on small images, their labels, and a study of one seed."""
    project = fresh.copy(tmp_path_factory.mktemp("studied") / "project")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    flies = {"yes": ["airplane", "bird"], "no": [c for c in CIFAR10 if c not in ("airplane", "bird")]}
    project.edit(lambda tree: tree["tasks"].update(flies={"labels": flies, "recipe": "compact"}))
    yaml = YAML()
    tree = yaml.load(project.root / "study/params.yaml")
    tree |= {"seeds": [3], "loss_weights": {"flies": 2.0}}
    tree["recipe"] |= {"epochs": 1, "batch_size": 32, "options": {"widths": [8, 8]}}
    yaml.dump(tree, project.root / "study/params.yaml")
    project.run("git", "commit", "-qam", "three tasks")
    project.run("dvc", "repro", "-q", "derive_labels")
    inside(project).run("mtl", "repro", "--jobs", "2")
    return project


def inside(project: Project) -> Project:
    return Project(project.root / "study", project.environment)


@pytest.mark.slow
def test_the_study_ends_in_one_file(studied):
    content = json.loads((studied.root / "metrics/study.json").read_text())
    assert (content["tasks"], content["base"]) == (["flies", "model1", "model2"], "model1")
    constant = {"flies": entropy([0.2, 0.8]) / 2, "model1": np.log(10), "model2": entropy([0.6, 0.4])}
    assert content["loss_weights"] == {task: pytest.approx(1 / loss) for task, loss in constant.items()}
    runs = {run["arrangement"]: run for run in content["runs"]}
    assert set(runs) == {"independent", "shared", "uncertainty", "derived", "combined"}
    assert content["images"] == sum(len(np.load(studied.root / f"data/raw/images/x_{split}.npy")) for split in HELD_OUT)
    cost = {key for key in runs["combined"] if key not in ("arrangement", "tasks")}
    assert all(runs["combined"][key] == runs["independent"][key] for key in cost)
    same = {task for task in content["tasks"] if runs["combined"]["tasks"][task] == runs["independent"]["tasks"][task]}
    assert same == {"model1"}  # which nothing implies
    for run in runs.values():
        assert (run["seed"], set(run["tasks"]), run["images_seen"]) == (3, set(content["tasks"]), 3 * 100)
        assert min(run["seconds"], run["cpu_seconds"], run["milliseconds_per_image"]) > 0
    spent = {name: run["multiply_adds"] for name, run in runs.items()}
    trunk = 11 * 11 * 4 * 3 * 24 + 11 * 11 * 9 * 24 * 8 + 5 * 5 * 9 * 8 * 8 * 2 + 2 * 2 * 9 * 8 * 8
    assert spent["derived"] == 3 * 300 * (trunk + 8 * 10)
    assert spent["shared"] == spent["uncertainty"] == 3 * 300 * (trunk + 8 * (10 + 2 + 2))
    assert runs["uncertainty"]["parameters"] == runs["shared"]["parameters"] + 3  # a weight for each task
    assert spent["independent"] == 3 * 100 * (3 * trunk + 8 * (10 + 2 + 2))
    assert runs["independent"]["parameters"] > 2 * runs["shared"]["parameters"]
    assert (studied.root / "study/gains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_project_does_not_see_the_study_and_nothing_is_left_to_run(studied):
    assert "up to date" in inside(studied).run("dvc", "status").stdout
    assert "study" not in studied.run("dvc", "dag", "--full").stdout
    assert "study" not in studied.run("dvc", "status", "--json").stdout
    status = studied.run("git", "status", "--porcelain", "--untracked-files=all").stdout
    names = {line[3:] for line in status.splitlines()}
    assert not [name for name in names if name.endswith((".png", ".npy", ".db"))]
    assert {"study/dvc.lock", "study/runs/shared-3.json", "metrics/study.json"} <= names


@pytest.mark.slow
def test_its_runs_are_in_the_experiment_study_of_the_projects_store(studied):
    runs = search(studied, "tags.stage LIKE 'train@%'")
    assert set(runs.experiment) == {"study"}
    by_arrangement = runs.set_index("params.arrangement")
    assert set(by_arrangement.index) == {"independent", "shared", "uncertainty", "derived"}
    assert set(runs["params.seed"]) == {"3"}
    content = json.loads((studied.root / "metrics/study.json").read_text())
    for run in content["runs"]:
        if run["arrangement"] == "combined":  # by the networks of `independent`
            logged = by_arrangement.loc["independent"]
            assert logged["metrics.combined.model2.acc"] == pytest.approx(run["tasks"]["model2"]["acc"])
            continue
        logged = by_arrangement.loc[run["arrangement"]]
        assert logged["metrics.model2.acc"] == pytest.approx(run["tasks"]["model2"]["acc"])
        assert logged["metrics.multiply_adds"] == run["multiply_adds"]
        assert logged[f"tags.out.runs/{run['arrangement']}-3.json"]
        assert logged["tags.dep.../data/labels"]
    assert by_arrangement.loc["shared"]["metrics.flies-model1-model2.train_loss"] > 0


@pytest.mark.slow
def test_a_report_on_three_tasks_of_the_study_alone(studied):
    (studied.root / "metrics/main_evaluate.json").unlink()  # that of the committed run, which had two tasks
    done = studied.run("mtl", "report")
    assert "metrics/main_evaluate.json is missing: `dvc repro` writes it" in done.stderr
    for task in ("flies", "model1", "model2"):
        assert f"\n{task}: " in done.stdout


@pytest.mark.slow
def test_a_second_forced_run_gives_the_same_results(studied):
    runs = studied.root / "study/runs"
    results = list(runs.glob("*-3.json"))
    before = {path.name: path.read_bytes() for path in results}
    assert len(before) == 4
    inside(studied).run("mtl", "repro", "--jobs", "2", "--force")
    assert {path.name: path.read_bytes() for path in results} == before
