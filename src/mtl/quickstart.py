"""`make run`: decide where the images come from, run the DAG, show what came out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import click

from mtl import hardware, params, repro, store
from mtl.edits import set_param, set_params
from mtl.errors import UserError
from mtl.repro.devices import default_jobs, gpu_devices

GENERATED = "This run uses GENERATED images (drawn by code): {why}."
WAY_BACK = (
    "These are results on GENERATED images. For real ones: `git restore params.yaml dvc.lock metrics`, then\n"
    "`CIFAR10_PATH=<cifar-10-python.tar.gz, or a folder or tar of <split>/<class>/*> make run`."
)


@click.command
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Stages at once. Default: what the cores allow.")
def command(jobs: int | None) -> None:
    """Run the whole DAG on the images that can be had here, and show the results (`make run`).

    A copy of CIFAR-10 is taken from $CIFAR10_PATH or data.path, else from Keras' cache or the network; where none can
    be had, data.source in params.yaml is set to `generated`, which the first and the last line say. Where the processor
    has no bfloat16, the recipes in use that ask for it are set to float32 before they train for the first time.
    """
    started = time.perf_counter()
    asked = params.read()
    params.refuse_uri(asked.data)
    choose_images(asked)
    settings = params.read()
    if settings.data.source == "generated":
        nowhere = f"CIFAR-10 is neither in {settings.data.path} nor to be downloaded from here"
        why = "params.yaml says so" if asked.data.source == "generated" else nowhere
        click.secho(GENERATED.format(why=why), fg="yellow", bold=True)
    choose_precision(settings, hardware.native_bfloat16(), gpu_devices(os.environ))
    settings = params.read()
    status = repro.repro(Path.cwd(), [], jobs or max(1, default_jobs() // settings.hardware.threads))
    if status:
        raise SystemExit(status)
    click.echo("\n" + summary(settings, time.perf_counter() - started))
    if settings.data.source == "generated":
        click.secho("\n" + WAY_BACK, fg="yellow", bold=True)


def choose_images(settings: params.Params) -> None:
    """Set data.source to what can be had here; a copy in $CIFAR10_PATH is linked and taken.

    Raises UserError where $CIFAR10_PATH is not there.
    """
    if given := os.environ.get("CIFAR10_PATH"):
        choose_images_from(Path(given), settings)
        return
    if settings.data.source != "cifar10":
        return
    from mtl.sources import cifar10

    found = cifar10.find_local(settings.data.path)
    if found:
        click.echo(f"images: {found}")
    elif (store.RAW / "dataset.json").exists() and store.read_dataset().source == "cifar10":
        click.echo(f"images: {store.RAW}, loaded before")
    elif cifar10.can_download():
        click.echo("images: CIFAR-10 will be downloaded (163 MB)")
    else:
        set_param("data.source", "generated")


def choose_precision(settings: params.Params, native: bool | None, gpus: Sequence[str]) -> None:
    """Set the recipes in use to float32 where bfloat16 would only be imitated, unless their models are there already.

    Imitated convolutions take many times as long as those of float32: hours for minutes (bench/precision.py).

    Args:
        native: whether the processor has bfloat16; None, where that cannot be told, changes nothing.
        gpus: the devices that will train instead of the processor.
    """
    slow = hardware.imitated(settings, list(settings.tasks), native, gpus)
    trained = all(store.model_path(task).exists() for task in settings.tasks)
    if trained or not slow:
        return
    set_params({f"recipes.{name}.precision": "float32" for name in slow})
    click.echo(
        f"precision: this processor has no bfloat16; {', '.join(f'recipes.{name}' for name in slow)} set to float32 in"
        " params.yaml (`git restore params.yaml` goes back)"
    )


def choose_images_from(copy: Path, settings: params.Params) -> None:
    """Take CIFAR-10 from `copy`: link it into data.path and set data.source."""
    link_copy(copy, Path(settings.data.path))
    if settings.data.source != "cifar10":
        set_param("data.source", "cifar10")


def link_copy(copy: Path, folder: Path) -> None:
    """Put a link to `copy` into `folder`, in the place of any other link there."""
    if not copy.exists():
        raise UserError(f"CIFAR10_PATH: {copy} does not exist; give an archive or a folder")
    copy = copy.resolve()
    link = folder / copy.name
    if link.resolve() == copy:
        return
    if folder.resolve().is_relative_to(copy):
        raise UserError(f"CIFAR10_PATH: {copy} is {folder} itself or holds it; leave CIFAR10_PATH out")
    folder.mkdir(parents=True, exist_ok=True)
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for other in there:
        if not other.is_symlink():
            raise UserError(f"CIFAR10_PATH: {other} is in the way; move it away, or leave CIFAR10_PATH out to use it")
    for other in there:
        click.echo(f"images: no longer {other} -> {other.readlink()}")
        other.unlink()
    link.symlink_to(copy)
    click.echo(f"images: {link} -> {copy}")


def summary(settings: params.Params, seconds: float) -> str:
    """The results as a table, what they were got on, and what to try next."""
    dataset = store.read_dataset()
    verdict = store.read_json(store.METRICS / "main_evaluate.json")
    official = ", the official archive" if dataset.official else ""
    lines = [
        f"{dataset.name}{official}: {dataset.train} training, {dataset.validation} validation and {dataset.test} test"
        " images",
        "",
        f"{'task':<16}{'recipe':<22}{'test loss':>10}{'test acc':>10}",
    ]
    for task, got in verdict["tasks"].items():
        lines.append(f"{task:<16}{settings.tasks[task].recipe:<22}{got['loss']:>10.4f}{got['acc']:>10.4f}")
    lines += ["", f"{'sum_loss':<38}{verdict['sum_loss']:>10.4f}", f"{'ave_acc':<38}{verdict['ave_acc']:>20.4f}"]
    for task, got in verdict.get("derived", {}).items():
        lines.append(f"{task + ' as ' + got['from'] + ' implies it':<38}{got['acc']:>20.4f}")
        lines.append(f"{task + ' contradicts ' + got['from']:<38}{got['contradiction_rate']:>20.4f}")
    for task in verdict["tasks"]:
        if verdict["tasks"][task]["one_class"]:
            lines.append(f"WARNING: {task} gives one answer for every image; its training collapsed")
    lines += [
        "",
        f"{seconds:.0f} s. Next, after `source .venv/bin/activate`:",
        "  mlflow ui           every run, with its curves, model and lineage, at http://127.0.0.1:5000",
        "  dvc plots show      learning curves as a page",
        "  dvc params diff     what you changed in params.yaml since the last commit",
    ]
    return "\n".join(lines)
