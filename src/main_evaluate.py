"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

import shutil
import tempfile
from pathlib import Path

from mtl import errors, evaluation, hardware, models, params, store, tracking


def main() -> None:
    """Stage `main_evaluate`."""
    settings = params.read()
    hardware.import_tensorflow()
    from mtl import networks

    with tracking.stage_run("main_evaluate", settings) as run, tempfile.TemporaryDirectory() as folder:
        hardware.configure(settings.hardware, "float32", settings.seed)
        run.log_dataset(store.read_dataset())
        images = store.read_images("test")
        answers, joint = {}, {}
        for task in settings.tasks:
            classes = store.read_classes(task)
            networks.find(settings.recipe(task).network)  # a person's own module may register its layers
            model = models.read(store.model_path(task))
            answers[task] = evaluation.Answers(
                labels=store.read_labels(task, "test"),
                probabilities=networks.predict(model, images),
                classes=tuple(classes["classes"]),
                of_class=classes["of_class"],
                loss=settings.recipe(task).loss,
            )
            shutil.copy(store.model_path(task), folder)
            joint[task] = classes["classes"]
        gone = sorted({path.stem for path in store.MODELS.glob("*.keras")} - set(settings.tasks))
        if gone:
            print(f"left out, no such task in {params.PATH}: {', '.join(gone)}")

        verdict = evaluation.judge(answers)
        store.write_json(store.METRICS / "main_evaluate.json", verdict)
        run.log_metrics(evaluation.flat(verdict))
        store.write_json(Path(folder) / "classes.json", joint)
        run.log_joint_model(Path(folder), images)
        print(f"sum_loss {verdict['sum_loss']:.4f}, ave_acc {verdict['ave_acc']:.4f}")


if __name__ == "__main__":
    errors.run(main)
