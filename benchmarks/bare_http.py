"""Nothing but aiohttp, which reads a submission and answers it: the limit of every broker that is made of it."""

import sys

from aiohttp import web


async def accept(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"Message": "OK"})


if __name__ == "__main__":
    application = web.Application()
    application.router.add_post("/api/v1/wg/key/exchange", accept)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
