"""A WebSocket client of Python's `websockets`: sends messages of a megabyte and a ping, and prints the Close frame.

Arguments: the URL, and the cookie.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url, cookie):
    headers = {"Cookie": cookie}
    async with connect(url, additional_headers=headers, max_size=None, proxy=None) as socket:
        for number in range(8):
            message = bytes([number]) * (1 << 20)
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
        print("echoed", flush=True)
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print(closed.rcvd.code, closed.rcvd.reason, flush=True)


asyncio.run(main(*sys.argv[1:]))
