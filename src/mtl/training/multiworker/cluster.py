"""The machines that train one model together, as TF_CONFIG says."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass

from mtl.config.params import Hardware
from mtl.errors import UserError

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The workers' addresses, `host:port` or `[IPv6]:port`, the chief's first, and which of them this process is."""

    workers: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Return whether this process is the one that writes checkpoints, the model and metrics, and logs to MLflow."""
        return self.index == 0


def of(hardware: Hardware) -> Cluster:
    """The cluster of this process, which is alone where the strategy is not `multi_worker`."""
    return read() if hardware.strategy == "multi_worker" else Cluster(("",), 0)


def read() -> Cluster:
    """The cluster of TF_CONFIG. Raises UserError, one line, where it is missing or invalid."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        raise UserError(f"strategy multi_worker: {VARIABLE} is not set; each worker needs its own, like {EXAMPLE}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{VARIABLE} is not valid JSON ({error}); it must be like {EXAMPLE}") from None
    jobs = content.get("cluster") if isinstance(content, dict) else None
    task = content.get("task") if isinstance(content, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        missing = "task" if isinstance(jobs, dict) else "cluster"
        raise UserError(f"{VARIABLE} has no {missing!r}; it must be like {EXAMPLE}")
    if jobs.get("ps"):
        raise UserError(f"{VARIABLE}: 'ps' in its cluster: Keras 3 does not support parameter servers; leave it out")
    parts = {job: _addresses(job, jobs.get(job, [])) for job in ("chief", "worker")}
    if len(parts["chief"]) > 1:
        raise UserError(f"{VARIABLE}: {len(parts['chief'])} chiefs; there must be one, or none: then worker 0 is it")
    workers = (*parts["chief"], *parts["worker"])
    if len(set(workers)) != len(workers):
        raise UserError(f"{VARIABLE}: an address is there twice: {', '.join(workers)}; each worker needs its own")
    job, number = task.get("type"), str(task.get("index"))
    if job not in parts or not number.isdecimal() or int(number) >= len(parts[job]):
        known = ", ".join(f"{job} {i}" for job, members in parts.items() for i in range(len(members))) or "none"
        raise UserError(f"{VARIABLE}: its own task, {job} {number}, is not in its cluster; there: {known}")
    return Cluster(workers, int(number) + (len(parts["chief"]) if job == "worker" else 0))


def _addresses(job: str, addresses: object) -> list[str]:
    """The addresses of a job, checked."""
    if not isinstance(addresses, list):
        raise UserError(f"{VARIABLE}: cluster.{job} is no list of addresses; it must be like {EXAMPLE}")
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not _is_host(host) or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"{VARIABLE}: cluster.{job}: {address!r} is no address like 'host:2222' or '[::1]:2222'")
    return addresses


def _is_host(host: str) -> bool:
    """Return whether `host` is a name, an IPv4 address or an IPv6 address in brackets."""
    if not host.startswith("["):
        return bool(host) and ":" not in host
    try:
        return host.endswith("]") and ipaddress.ip_address(host[1:-1]).version == 6
    except ValueError:
        return False
