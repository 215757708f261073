"""A bare aiohttp handler that accepts every submission: the limit for a broker that uses aiohttp."""

import sys

from aiohttp import web


async def accept(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"Message": "OK"})


if __name__ == "__main__":
    application = web.Application()
    application.router.add_post("/api/v1/wg/key/exchange", accept)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
