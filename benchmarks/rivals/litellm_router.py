"""The same load through LiteLLM's Router, in an environment of its own: `pip install litellm redis`.

    python benchmarks/rivals/litellm_router.py SPEC.json     (what a SPEC is: `benchmarks/rivals.py`)

A step is a model group, its keys are the group's deployments, the next step is its fallback. Three retries, the
default routing strategy and cooldowns. Where a limit is given, `rpm` or `tpm` and `enforce_model_rate_limits` hold
it; with `redis` the processes share usage and cooldowns. A job that the router gives up is asked again after a second.
"""

import asyncio
import json
import logging
import os
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm import Router

RETRIES = 3
GIVEN_UP_S = 1.0


def router(spec: dict[str, Any]) -> Router:
    models: list[dict[str, Any]] = []
    fallbacks = []
    limited = False
    for group in spec["groups"]:
        names = [f"{group['name']}-{number}" for number in range(len(group["steps"]))]
        for name, step in zip(names, group["steps"], strict=True):
            held = {name: step[name] for name in ("rpm", "tpm") if step[name]}
            limited = limited or bool(held)
            for key in step["keys"]:
                params = {"model": "openai/m", "api_base": step["base_url"], "api_key": key, **held}
                models.append({"model_name": name, "litellm_params": params})
        if names[1:]:
            fallbacks.append({names[0]: names[1:]})
    shared = {f"redis_{name}": value for name, value in (spec["redis"] or {}).items()}
    return Router(
        model_list=models,
        fallbacks=fallbacks,
        num_retries=RETRIES,
        timeout=spec["timeout_s"],
        optional_pre_call_checks=["enforce_model_rate_limits"] if limited else None,
        **shared,
    )


async def main(spec: dict[str, Any]) -> None:
    litellm.suppress_debug_info = True
    logging.disable(logging.CRITICAL)
    routes, groups, bodies = router(spec), cycle(spec["groups"]), cycle(spec["bodies"])
    ends_at = time.monotonic() + spec["seconds"]

    async def slot() -> None:
        while time.monotonic() < ends_at:
            group, body = next(groups), next(bodies)
            try:
                await routes.acompletion(**{**body, "model": f"{group['name']}-0"})
            except Exception:
                await asyncio.sleep(GIVEN_UP_S)

    slots = [asyncio.create_task(slot()) for _ in range(spec["in_flight"])]
    await asyncio.sleep(spec["seconds"])
    for each in slots:
        each.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
