"""A process that holds a cluster down until it is killed: ``python -m tests.kubernetes.holder CONNECTION.json WATTS``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from adapters._k8s_config import KubernetesConfig
from adapters.kubernetes import connect
from vppd.model import Setpoint


async def main(path: str, power: str) -> None:
    """Apply a budget, say so, and keep it."""
    config = KubernetesConfig.model_validate(json.loads(await asyncio.to_thread(Path(path).read_text)))
    async with connect(config) as device:
        applied = await device.apply(Setpoint("cluster", float(power), 3600.0))
        sys.stdout.write(f"{applied.power_w}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
