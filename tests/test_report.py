"""`mtl report`: statistics by hand, each branch of the advice, and what a person sees."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mtl import cli, files
from mtl.data import paths
from mtl.data.store import Dataset
from mtl.errors import UserError
from mtl.evaluation import figures
from mtl.report import advice
from mtl.report.advice import Combined, Evidence
from mtl.report.sections import sections
from mtl.study import figure, results, statistics
from mtl.study.statistics import Interval


def run(arrangement: str, seed: int, **accuracies: float) -> dict:
    tasks = {task: {"acc": acc, "nll": 1 - acc} for task, acc in accuracies.items()}
    spent = {"multiply_adds": 3_000_000, "parameters": 1234, "images_seen": 200}
    times = {"seconds": 10.0 + seed, "cpu_seconds": 9.0, "milliseconds_per_image": 0.5 + seed}
    return {"arrangement": arrangement, "seed": seed, "tasks": tasks, **spent, **times}


# species implies wild; nothing implies night, and the derived arrangement says nothing of it.
STUDY = {
    "data": "photos",
    "machine": {"cpu": "a processor", "cores": 2},
    "tasks": ["night", "species", "wild"],
    "base": "species",
    "runs": [
        run("independent", 0, species=0.80, wild=0.90, night=0.50),
        run("independent", 1, species=0.50, wild=0.90, night=0.50),
        run("shared", 0, species=0.84, wild=0.90, night=0.60),
        run("shared", 1, species=0.54, wild=0.81, night=0.61),
        run("derived", 0, species=0.82, wild=0.95),
        run("derived", 1, species=0.52, wild=0.95),
    ],
}
VERDICT = {
    "sum_loss": 1.5,
    "ave_acc": 0.8,
    "contradiction_rate": 0.02,
    "tasks": {
        "species": {"loss": 0.7, "acc": 0.8, "nll": 0.7, "acc_low": 0.79, "acc_high": 0.81, "ece": 0.01},
        "wild": {"loss": 0.3, "acc": 0.9, "nll": 0.3, "one_class": False},
        "night": {"loss": 0.5, "acc": 0.7, "nll": 0.5},
    },
    "derived": {
        "wild": {
            "from": "species",
            "acc": 0.95,
            "contradiction_rate": 0.02,
            "gain": -0.05,
            "gain_low": -0.07,
            "gain_high": -0.03,
            "p_value": 0.001,
            "contradict": {"images": 80, "acc": 0.25, "from_acc": 0.7},
        }
    },
}


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with both metrics files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    write("main_evaluate", VERDICT)
    write("study", STUDY)
    return tmp_path


def write(name: str, content: dict) -> None:
    (Path("metrics") / f"{name}.json").write_text(json.dumps(content))


def test_the_interval_is_students():
    got = statistics.over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5  # t(0.975, 2 degrees of freedom) · sd 1 / √3
    assert (got.value, got.low, got.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)
    assert statistics.over_seeds([]) is None
    assert not statistics.over_seeds([1.5]).bounded
    assert statistics.over_seeds([1.5]).sign == 0


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_the_opposite_difference_has_the_opposite_interval(values):
    got, opposite = statistics.over_seeds(values), statistics.over_seeds([-value for value in values])
    assert got.low <= got.value <= got.high
    assert tuple(got.negated) == pytest.approx(tuple(opposite), abs=1e-9)


def test_gains_by_hand_are_paired_by_seed():
    study = results.StudyResults.model_validate(STUDY)
    assert statistics.gains(study, "shared", "species") == pytest.approx([5.0, 8.0])
    assert statistics.gains(study, "shared", "wild") == pytest.approx([0.0, -10.0])
    assert statistics.gains(study, "derived", "night") == []
    assert statistics.mean_gains(study, "shared") == pytest.approx([(20 + 5 + 0) / 3, (22 + 8 - 10) / 3])
    assert statistics.mean_gains(study, "derived") == []  # it does not answer night
    lonely = results.StudyResults.model_validate({**STUDY, "runs": STUDY["runs"][:3]})
    assert statistics.gains(lonely, "shared", "species") == pytest.approx([5.0])  # seed 1 has no partner


BETTER, WORSE, UNCLEAR = Interval(1, 0.5, 1.5), Interval(-1, -1.5, -0.5), Interval(0.1, -0.5, 0.7)
BEST, AS_GOOD = Combined(BETTER, BETTER, UNCLEAR, UNCLEAR), Interval(0, 0, 0)
SURER = Combined(UNCLEAR, AS_GOOD, BETTER, BETTER)
BRANCHES = {
    "collapsed": (Evidence(collapsed=True, base="a", gain=BETTER), "repair", True),
    "own is worse": (Evidence(base="a", gain=WORSE), "derive", True),
    "own is exactly as good": (Evidence(base="a", gain=Interval(0, 0, 0)), "derive", True),
    "own is not clearly better": (Evidence(base="a", gain=UNCLEAR), "derive", False),
    "own is better, sharing untried": (Evidence(base="a", gain=BETTER), "keep", False),
    "own is better, sharing worse": (Evidence(base="a", gain=BETTER, shared=WORSE), "keep", True),
    "own is better, sharing unclear": (Evidence(base="a", gain=BETTER, shared=UNCLEAR), "keep", False),
    "sharing beats own and derived": (
        Evidence(base="a", gain=WORSE, shared=BETTER, shared_over_derived=BETTER),
        "share",
        True,
    ),
    "sharing beats own, not derived": (
        Evidence(base="a", gain=WORSE, shared=BETTER, shared_over_derived=UNCLEAR),
        "derive",
        True,
    ),
    "sharing beats own, derived not in the study": (Evidence(base="a", gain=BETTER, shared=BETTER), "keep", False),
    "combined is better than both": (Evidence(base="a", gain=WORSE, combined=BEST), "combine", True),
    "combined is as good and surer": (Evidence(base="a", gain=WORSE, combined=SURER, cost=7), "combine", True),
    "combined is better, own best of the two": (Evidence(base="a", gain=BETTER, combined=BEST), "combine", True),
    "combined is better than own alone": (
        Evidence(base="a", gain=WORSE, combined=Combined(BETTER, UNCLEAR, BETTER, UNCLEAR)),
        "derive",
        True,
    ),
    "combined is surer, and less accurate": (
        Evidence(base="a", gain=WORSE, combined=Combined(BETTER, WORSE, BETTER, BETTER), cost=7),
        "derive",
        True,
    ),
    "combined is one of them, scaled": (
        Evidence(base="a", gain=BETTER, combined=replace(BEST, of_both=False)),
        "keep",
        False,
    ),
    "combined is better, sharing too": (
        Evidence(base="a", gain=WORSE, combined=BEST, shared=BETTER, shared_over_derived=BETTER),
        "share",
        True,
    ),
    "collapsed, combined is better": (Evidence(collapsed=True, base="a", combined=BEST), "repair", True),
    "no interval, study says derived": (Evidence(base="a", gain=Interval(1), derived=BETTER), "derive", True),
    "no interval, study says own": (Evidence(base="a", derived=WORSE, shared=WORSE), "keep", True),
    "no interval anywhere": (Evidence(base="a", gain=Interval(1)), "derive", False),
    "nobody implies it, nothing tried": (Evidence(), "keep", False),
    "nobody implies it, sharing better": (Evidence(shared=BETTER), "share", True),
    "nobody implies it, sharing unclear": (Evidence(shared=UNCLEAR), "keep", False),
    "nobody implies it, sharing worse": (Evidence(shared=WORSE), "keep", True),
    "it was the training, not the sharing": (Evidence(shared=BETTER, shared_over_derived=WORSE), "keep", True),
    "the training or the sharing": (Evidence(shared=BETTER, shared_over_derived=UNCLEAR), "keep", False),
}


@pytest.mark.parametrize("case", BRANCHES)
def test_each_branch_of_the_rule(case):
    evidence, action, sure = BRANCHES[case]
    got = advice.advise(evidence)
    assert (got.action, got.sure) == (action, sure)
    text = advice.sentence("wild", evidence)
    assert text.startswith("wild: ")
    assert text.endswith(".")
    assert (", not sure: " in text) is not sure
    assert ("would settle it" in text) is not sure


def test_the_sentence_says_what_sharing_is_held_against():
    whole = "than one network with all the training for itself"
    assert f"is not clearly better {whole}" in advice.sentence(
        "a", Evidence(shared=BETTER, shared_over_derived=UNCLEAR)
    )
    assert f"is no better {whole}" in advice.sentence("a", Evidence(shared=BETTER, shared_over_derived=WORSE))
    assert whole not in advice.sentence("a", Evidence(shared=WORSE, shared_over_derived=WORSE))


def test_three_tasks_as_a_person_sees_them(there):
    done = CliRunner().invoke(cli.cli, ["report"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    (wild,) = [line for line in lines if line.startswith("wild: ")]
    assert "derive it from species, sure" in wild
    assert "own − species's -5.00 points, 95 % -7.00 to -3.00" in wild
    (night,) = [line for line in lines if line.startswith("night: ")]
    assert "share one network with the other tasks, sure" in night
    assert "shared over independent Δ +21.00 %" in night
    (species,) = [line for line in lines if line.startswith("species: ")]
    assert "keep its own model, not sure" in species
    (row,) = [line for line in lines if line.startswith("shared") and " all " in line]
    assert re.split(r"  +", row) == [
        "shared", "all", "+7.50 (-3.09 to +18.09)", "–", "3.0000e+06", "1,234", "200", "9", "0.500"
    ]  # fmt: skip
    right = "wild is right on 25.0% of them, species (on its own labels) on 70.0%"
    assert f"wild contradicts species on 80 images (2.00%): {right}." in lines
    assert "0.6700 ± 0.2121" in done.stdout  # derived species: mean and sd of 0.82 and 0.52


def test_a_combined_answer_is_in_the_table_and_the_advice_with_its_cost(there):
    over = {"gain": 0.02, "gain_low": 0.01, "gain_high": 0.03, "p_value": 1e-5}
    over |= {"nll_gain": 0.05, "nll_gain_low": 0.04, "nll_gain_high": 0.06, "nll_p_value": 2e-4}
    wild = {"from": "species", "own_weight": 0.75, "derived_weight": 1.5, "acc": 0.97, "nll": 0.1}
    wild |= {"over_own": over, "over_derived": over | {"gain": 0.015}}
    wild["multiply_adds"] = {"own": 1_234_567, "derived": 5, "combined": 1_234_572}
    write("main_evaluate", VERDICT | {"combined": {"wild": wild}})
    lines = CliRunner().invoke(cli.cli, ["report"]).stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("combined over"))
    rows = [re.split(r"  +", line) for line in lines[start + 2 : start + 6]]
    assert rows[0] == ["wild's own", "acc", "+0.0200 (+0.0100 to +0.0300)", "1e-05"]
    assert [row[:2] for row in rows[1:]] == [["wild's own", "nll"], ["species's", "acc"], ["species's", "nll"]]
    assert max(len(line) for line in lines[start : start + 6]) <= 80
    assert any("0.75" in line and "1.5" in line and "acc 0.9700, nll 0.1000" in line for line in lines)
    (advised,) = [line for line in lines if line.startswith("wild: ")]
    assert advised.startswith("wild: combine ") and "1,234,567" in advised
    assert "combined over" not in advised  # a study of an earlier version
    runs = [run("combined", seed, species=acc, wild=0.99, night=0.50) for seed, acc in enumerate((0.80, 0.50))]
    write("study", {**STUDY, "runs": [*STUDY["runs"], *runs], "images": 6000})
    text = CliRunner().invoke(cli.cli, ["report"]).stdout
    (advised,) = [line for line in text.splitlines() if line.startswith("wild: ")]
    assert "combined over independent Δ +10.00 %" in advised and "combined over derived Δ +4.21 %" in advised
    assert re.search(r"^combined +wild +0\.9900 ± 0\.0000 ", text, re.M) and "6,000 images" in text


def test_markdown_has_every_section_between_its_comments(there):
    text = CliRunner().invoke(cli.cli, ["report", "--markdown"]).stdout
    found = re.findall(r"<!-- mtl report: (\w+) -->\n\n(.*?)\n\n<!-- mtl report: end -->", text, re.S)
    assert [name for name, _ in found] == ["verdict", "study", "advice"]
    assert dict(found) == sections(markdown=True)[0]
    for name, content in found[:2]:
        rows = [line for line in content.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1, name


@pytest.mark.parametrize(
    ("name", "advised"),
    [("study", "`cd study && mtl repro --jobs 2` writes it"), ("main_evaluate", "`dvc repro` writes it")],
)
def test_a_missing_file_is_one_line_and_the_other_is_reported(there, name, advised):
    Path(f"metrics/{name}.json").unlink()
    done = CliRunner().invoke(cli.cli, ["report"])
    assert done.exit_code == 0
    assert done.stderr == f"metrics/{name}.json is missing: {advised}\n"
    (wild,) = [line for line in done.stdout.splitlines() if line.startswith("wild: ")]
    assert "from species" in wild


def test_without_both_it_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"nothing to report: .*main_evaluate.json is missing.*study.json is missing"):
        sections(markdown=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "metrics/study.json: not valid JSON"),
        ('{"data": "photos"}', "metrics/study.json: machine: is missing"),
        ("[]", "metrics/study.json: "),
    ],
)
def test_a_broken_file_is_one_line(there, content, message):
    Path("metrics/study.json").write_text(content)
    with pytest.raises(UserError) as caught:
        sections(markdown=False)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_study_of_other_data_or_tasks_is_left_out(there):
    write("study", {**STUDY, "tasks": ["species", "wild"]})
    found, (note,) = sections(markdown=False)
    assert "study" not in found
    assert "it has no task night" in note
    write("study", STUDY)
    dataset = Dataset("drawings", "generated", {}, "drawn", 1, 1, 1, (8, 8, 3), {"class": "text"})
    files.write_json(paths.DATASET, asdict(dataset))
    found, (note,) = sections(markdown=False)
    assert "study" not in found
    assert "it is about photos, and data/raw holds drawings" in note


def test_the_figure_draws_what_there_is():
    study = results.StudyResults.model_validate(STUDY)
    drawn = figure.gains(study)
    (axes,) = drawn.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["night", "species", "wild", "mean"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"independent", "shared", "derived"}
    assert figures.png(drawn) == figures.png(figure.gains(study))
