"""A load client on one keep-alive connection per client: `python bench/load.py URL BODY CLIENTS SECONDS [HEADER …]`.

Each client sends the same prepared bytes, waits for the whole answer and asks again. Prints requests per second,
latency percentiles in milliseconds and what failed (another status than 200, or a broken connection) as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop


async def _client(host: str, port: int, message: bytes, until: float, times: list[float], failures: list[str]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while (began := time.perf_counter()) < until:
        try:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if head[9:12] != b"200":
                failures.append(f"{head[9:12].decode()}: {body[:200].decode(errors='replace')}")
            if b"connection: close" in head.lower():
                raise ConnectionError("closed by the server")
        except (OSError, EOFError, ValueError) as error:
            failures.append(repr(error))
            reader, writer = await asyncio.open_connection(host, port)
        times.append(time.perf_counter() - began)
    writer.close()


async def load(url: str, body: bytes, clients: int, seconds: float, headers: list[str]) -> dict[str, object]:
    """Ask `url` from so many clients for so long."""
    parts = urlsplit(url)
    head = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}", *headers]
    message = "\r\n".join(head).encode() + b"\r\n\r\n" + body
    times: list[float] = []
    failures: list[str] = []
    began = time.perf_counter()
    one = (parts.hostname, parts.port, message, began + seconds, times, failures)
    await asyncio.gather(*(_client(*one) for _ in range(clients)))
    milliseconds = np.array(times) * 1000
    return {
        "rps": (len(times) - len(failures)) / (time.perf_counter() - began),
        **{f"p{q}_ms": float(np.percentile(milliseconds, q)) for q in (50, 99)},
        "requests": len(times),
        "failed": len(failures),
        "failures": failures[:5],
    }


if __name__ == "__main__":
    address, body_file, count, duration, *lines = sys.argv[1:]
    lines = lines or ["Content-Type: application/json"]
    print(json.dumps(uvloop.run(load(address, Path(body_file).read_bytes(), int(count), float(duration), lines))))
