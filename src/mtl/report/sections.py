"""`mtl report`: the tables of the verdict and of the study, and what they advise for each task."""

from __future__ import annotations

GAIN = (
    "Δ = 100 · (accuracy − accuracy of independent) / accuracy of independent, by seed: positive is better."
    " The mean is over the tasks; ± is the standard deviation over seeds, (95 %) Student's t interval over them."
    " Multiply-adds are those of the whole training, three times the way forward; CPU ms per image are of all networks"
    " of the arrangement, one thread, the quickest round."
)


def sections(markdown: bool) -> tuple[dict[str, str], list[str]]:
    """The text of `verdict`, `study` and `advice`, those there are, and a line for each metrics file that is not used.

    Raises:
        UserError: both files are missing, or one is broken.
    """
    from mtl.report import advice, tables
    from mtl.study import results

    verdict, study, notes = results.read()
    table = tables.markdown if markdown else tables.text
    found = {}
    if verdict is not None:
        found["verdict"] = "\n\n".join([table(tables.verdict(verdict)), *tables.contradictions(verdict)])
    if study is not None:
        seeds = sorted({run.seed for run in study.runs})
        where = f"{study.data}; seeds {', '.join(map(str, seeds))}; {study.machine.get('cpu') or 'unknown processor'}."
        found["study"] = "\n\n".join([table(tables.study(study)), f"{where} {GAIN}"])
    tasks = list(verdict.tasks) if verdict is not None else study.tasks
    sentences = [advice.sentence(task, advice.gather(task, verdict, study)) for task in tasks]
    found["advice"] = "\n".join(f"- {line}" if markdown else line for line in sentences)
    return found, notes
