"""A blueprint of this workspace: it starts a web server on loopback and has http.v1 check it.

Every file in .lily/blueprints is read like this one: an `async def` under `@blueprint` is enough. What the function returns is the payload.
"""

import json
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from pydantic import BaseModel, ConfigDict

from lily import Context, blueprint


class Bindings(BaseModel):
    """What the server answers with; http.v1 is asked to find exactly that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: dict[str, Any] = {"healthy": True}


@blueprint("sample.loopback_check.v1", bindings=Bindings, capabilities=["net.http"], example={"answer": {"healthy": True}})
async def loopback_check(ctx: Context, bindings: Bindings, run_input: Any) -> Any:
    """Check a web server that the check itself starts on loopback."""
    body = json.dumps(bindings.answer).encode()

    async def serve(client: SocketStream) -> None:
        async with client:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += await client.receive()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            await client.send(head.encode() + body)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, serve)
        await ctx.log.info("serving", port=port)
        checks = {"method": "GET", "url": f"http://127.0.0.1:{port}/health", "expect": {"status": 200, "json": {"$": bindings.answer}}}
        envelope = await ctx.run_blueprint("http.v1", checks, name="check")
        tasks.cancel_scope.cancel()
    return envelope
