"""`mtl report`: the tables of the verdict and of the study, and the advice for each task."""

from __future__ import annotations

GAIN = (
    "Score: accuracy, mean average precision or R². Skill: 1 − loss / loss of the best constant answer."
    " Δ score = 100 · (score − score of independent) / score of independent, Δ skill = 100 · the difference, by seed:"
    " positive is better."
    " The mean is over the tasks; ± is the standard deviation over seeds, (95 %) Student's t interval over them."
    " Multiply-adds are those of the whole training, three times the way forward; CPU ms per image are of all networks"
    " of the arrangement, one thread, the quickest round."
)
COMBINED = (
    "Combined has the networks of independent: a task that another one implies is answered by both, with weights fitted"
    " on the other half of the images."
)

MATRIX = (
    "What the training labels of two tasks say about each other, from 0, nothing, to 1, all: of names the normalised"
    " mutual information, of a value the share of its variance."
)


def sections(markdown: bool) -> tuple[dict[str, str], list[str]]:
    """The texts of `verdict`, `relations`, `study` and `advice` where they exist, and a line for each file not used.

    Raises:
        UserError: both files are missing, or one is broken.
    """
    from mtl.report import advice, tables
    from mtl.study import results

    verdict, study, notes = results.read()
    related = results.read_relations()
    table = tables.markdown if markdown else tables.text
    texts = {}
    if verdict is not None:
        parts = [table(tables.verdict(verdict))]
        if any(task.skill is not None and task.kind == "classes" for task in verdict.tasks.values()):
            parts.append(table(tables.scores(verdict)))
        parts += map(table, tables.of_kinds(verdict))
        if any(task.before_calibration for task in verdict.tasks.values()):
            parts.append(table(tables.calibration(verdict)))
        if verdict.combined:
            parts += [table(tables.combined(verdict)), *tables.weights(verdict)]
        if verdict.shifted is not None:
            parts.append(f"{table(tables.shifted(verdict))}\n{verdict.shifted.examples:,} images of another source.")
        texts["verdict"] = "\n\n".join([*parts, *tables.contradictions(verdict)])
    if related is not None and related.matrix:
        texts["relations"] = f"{table(tables.matrix(related))}\n\n{MATRIX}"
    if study is not None:
        seeds = sorted({run.seed for run in study.runs})
        source = f"{study.data}; seeds {', '.join(map(str, seeds))}; {study.machine.get('cpu') or 'unknown processor'}."
        if study.images is not None:
            source += f" Judged on {study.images:,} images, validation and test."
        more = f" {COMBINED}" if any(run.arrangement == "combined" for run in study.runs) else ""
        texts["study"] = "\n\n".join([table(tables.study(study)), f"{source} {GAIN}{more}"])
    if verdict is not None:
        tasks = list(verdict.tasks)
    else:
        assert study is not None  # `read` raises where both are missing
        tasks = study.tasks
    sentences = [advice.sentence(task, advice.gather(task, verdict, study)) for task in tasks]
    texts["advice"] = "\n".join(f"- {line}" if markdown else line for line in sentences)
    return texts, notes
