"""The GPU of each job, and the number of jobs by default."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence


def gpu_devices(environment: Mapping[str, str]) -> list[str]:
    """List the GPUs `environment` leaves to this process, as CUDA_VISIBLE_DEVICES names them.

    Without that variable it is what nvidia-smi lists; an empty list where there is no GPU.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        if shutil.which("nvidia-smi") is None:
            return []
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        visible = ",".join(answer.stdout.split()) if answer.returncode == 0 else ""
    return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]


def device_environment(slot: int, devices: Sequence[str]) -> dict[str, str]:
    """Return the variables that give the job in `slot` (from 0) one of `devices`, shared or not."""
    if not devices:
        return {}
    # Without growth the first TensorFlow job on a shared device takes all of its memory.
    device = devices[slot % len(devices)]
    return {"CUDA_VISIBLE_DEVICES": device, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def default_jobs() -> int:
    """Return the number of jobs by default: one per GPU, or else one per usable core."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return len(gpu_devices(os.environ)) or usable or 1
