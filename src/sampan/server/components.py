"""ComponentStatus: what `kubectl get componentstatuses` shows.

Nothing is stored. Scheduler, controllers and store share the process that answers, so an answer says that they live;
the checks of /readyz say more. Source: core/v1 ComponentStatus, deprecated since v1.19.
"""

from __future__ import annotations

from sampan.api.status import not_found
from sampan.base.objects import Object
from sampan.client.messages import Response
from sampan.server import respond
from sampan.server.call import Call
from sampan.server.options import list_options
from sampan.server.selectable import compile_match
from sampan.store.protocol import Item

PLURAL = "componentstatuses"
_NAMES = ("controller-manager", "etcd-0", "scheduler")


def serve(call: Call) -> Response:
    """GET or LIST. Raises 404 for a component that there is not."""
    if call.info.verb == "get":
        if call.info.name not in _NAMES:
            raise not_found("", PLURAL, call.info.name)
        return respond.obj(call, _status(call.info.name))
    match = compile_match(call.row, list_options(call.info.query))
    names = [n for n in _NAMES if match is None or match(Item(n, 0, b"{}", {}, {}))]
    return respond.computed(call, [_status(name) for name in names])


def _status(name: str) -> Object:
    return {
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
    }
