"""The built-in engine: connects to sysrepo, serves, and cleans up in the reverse order."""

import asyncio
from collections.abc import Callable

import sysrepo

from ..errors import ConfigurationError
from .datastore import Datastore
from .listening import Listening
from .server import Server


async def serve(stop: asyncio.Event, ready: Callable[[], None]) -> int:
    """Serves until told to stop. Raises ConfigurationError when the repository or what it configures cannot be used."""
    # What sysrepo refuses reaches the client; its own log would only say it twice.
    sysrepo.configure_logging()
    try:
        datastore = await asyncio.to_thread(Datastore)
    except sysrepo.SysrepoError as error:
        raise ConfigurationError("repository", f"sysrepo cannot be used: {error}") from error
    server = Server(datastore)
    listening = Listening(server)
    try:
        await server.start()
        await listening.start()
        ready()
        await stop.wait()
    finally:
        await listening.stop()
        await server.stop()
        await asyncio.to_thread(datastore.stop)
    return 0
