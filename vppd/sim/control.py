"""The way into the simulation that no real site has: read the truth, cause failures."""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vppd.sim.faults import Fault
from vppd.sim.site import Site


def control_app(site: Site) -> Starlette:
    """Return the control endpoint of a site."""

    async def state(request: Request) -> Response:
        return JSONResponse(site.truth())

    async def writes(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in site.outages:
            return JSONResponse({"error": f"no device {name}"}, 404)
        return JSONResponse({"id": name, "entries": site.entries(name)})

    async def fault(request: Request) -> Response:
        try:
            body = await request.json()
            name, kind, for_s = body["device"], Fault(body["kind"]), float(body["for_s"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": f"bad fault: {error}"}, 422)
        if name not in site.outages:
            return JSONResponse({"error": f"no device {name}"}, 404)
        site.outages[name].begin(kind, for_s)
        return JSONResponse(_faults(site))

    return Starlette(
        routes=[
            Route("/vppd-sim/v1/state", state),
            Route("/vppd-sim/v1/writes/{name}", writes),
            Route("/vppd-sim/v1/fault", fault, methods=["POST"]),
        ]
    )


def _faults(site: Site) -> dict[str, Any]:
    """Return the faults that hold now."""
    return {"faults": {name: kind.value for name, outage in site.outages.items() if (kind := outage.now())}}
