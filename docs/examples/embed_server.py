"""A server inside of another program, and a client that publishes something through it.

python docs/examples/embed_server.py
"""

from __future__ import annotations

import secrets

import trio

import tunnel
from tunnel.protocol.keys import generate_key


async def greet(stream: trio.abc.SendStream, _peer: tunnel.Peer) -> None:
    """Say hello to whoever comes."""
    await stream.send_all(b"hello from the other side\n")


async def main() -> None:
    """Both ends in one program, and a visit."""
    key = generate_key(secrets.token_bytes(32))
    config = tunnel.ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=key)
    async with tunnel.serve(config) as server:
        [address] = server.addresses
        where = tunnel.ClientConfig(
            server_addr=(address.host,), server_port=address.port, auth_key=key, pin=(server.pin,)
        )
        async with tunnel.connect(where, name="example") as link:
            async with link.publish(handler=greet, name="greeting") as public:
                for session in server.sessions():
                    print(f"{session.name} publishes {session.proxies[0].name} at {public}")
                async with await trio.open_tcp_stream(public.host, public.port) as stream:
                    async for data in stream:
                        print(data.decode(), end="")


if __name__ == "__main__":
    trio.run(main)
