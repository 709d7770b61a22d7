"""One node, wired: datastore, key manager, devices, applications and the 004 service, on one loop.

The order of the start is the order of need: what the datastore holds is known before links are made of it, and
applications are let in last. The end is the reverse.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from . import link_rules, stream_rules
from .applications import ApplicationTable
from .associations import LOCAL, AssociationTable, is_pair
from .config import AgentConfig
from .datastore import Datastore
from .devices.base import QkdDevice
from .errors import NodeError
from .interfaces import InterfaceTable, Plugins
from .links import LinkTable
from .lkms.manager import KeyManager
from .model import (
    Configuration,
    InterfaceId,
    InterfaceStatus,
    LinkId,
    NodeState,
    NodeStatus,
    Notification,
)
from .service.etsi004 import Etsi004Server
from .service.etsi014 import Etsi014Server
from .state import Pusher
from .tasks import Tasks

log = logging.getLogger(__name__)

WAITING_NOTIFICATIONS = 10_000  # more than these are dropped: a controller reads what is so, whatever it missed


def devices(config: AgentConfig) -> Mapping[InterfaceId, QkdDevice]:
    """The devices of the configuration file. Raises ConfigurationError."""
    plugins = Plugins.installed(config.file)
    return {InterfaceId(one.interface): plugins.create(one) for one in config.interfaces}


class Node:
    """`failed` is done when the node cannot go on; its exception says why."""

    def __init__(self, config: AgentConfig) -> None:
        """Raises ConfigurationError for devices that cannot be had."""
        self._config = config
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = Tasks(self._fail)
        self._notifications: asyncio.Queue[Notification] = asyncio.Queue(WAITING_NOTIFICATIONS)
        self._interfaces = InterfaceTable(devices(config), self._notify)
        self._datastore = Datastore(config, list(self._interfaces.interfaces.values()))
        self._keys = KeyManager(config.node, config.lkms, self)
        self._pusher = Pusher(self._refresh, self._state, self._datastore.push)
        changed = self._pusher.changed
        self._links = LinkTable(config.node, self._interfaces, self._keys, self._tasks, self._notify, changed)
        self._applications = ApplicationTable(self._keys, self._tasks, self._notify, changed)
        self._server = Etsi004Server(config.etsi004, self._applications)
        self._pairs: AssociationTable | None = None
        self._rest: Etsi014Server | None = None
        if (rest := config.etsi014) is not None:
            self._pairs = AssociationTable(config.node, rest, self._keys, self._tasks, self._notify, changed)
            self._rest = Etsi014Server(rest, self._pairs)
        self._configuration: Configuration | None = None
        self._applies = False

    async def start(self) -> None:
        """Returns when the node serves. Raises NodeError or OSError when it cannot; `stop` is to be called then, too."""
        self._configuration = await self._datastore.start(self._check, self._apply)
        await self._keys.start()
        await self._prune(self._configuration)
        self._applies = True
        self._bring_about(self._configuration)
        self._tasks.spawn(self._send(), "notifications")
        self._tasks.spawn(self._pusher.run(), "state")
        await self._server.start()
        if self._rest is not None:
            await self._rest.start()
        self._interfaces.announce(self._datastore.gone)
        log.info("node serves node=%s name=%s", self._config.node, self._config.name)

    async def stop(self) -> None:
        """Applications first, so that none is answered from a store that is closing."""
        servers = (self._server.stop,) if self._rest is None else (self._rest.stop, self._server.stop)
        for step in (*servers, self._tasks.cancel, self._links.stop, self._keys.stop, self._datastore.stop):
            try:
                await step()
            except Exception:  # whatever it is: the key store and the datastore still have to write
                log.exception("not stopped cleanly part=%s", step.__qualname__)

    # Configuration -----------------------------------------------------------------------------------------------------

    def _check(self, configuration: Configuration) -> None:
        link_rules.check(configuration, self._interfaces.interfaces)
        stream_rules.check(configuration)

    def _apply(self, _old: Configuration, new: Configuration) -> None:
        self._configuration = new
        if self._applies:
            self._bring_about(new)

    async def _prune(self, configuration: Configuration) -> None:
        """What was removed while this process did not run is erased."""
        pairs = [ksid for ksid, one in configuration.applications.items() if is_pair(one)] if self._pairs else []
        streams = [ksid for ksid in configuration.applications if ksid not in pairs]
        local = [ksid for ksid in self._keys.saved_deliveries() if ksid.startswith(LOCAL)] if self._pairs else []
        await self._keys.prune(configuration.links, streams, {*pairs, *local})
        if self._pairs is not None:
            await self._pairs.restore()

    def _bring_about(self, configuration: Configuration) -> None:
        self._links.apply(configuration)
        streams = configuration.applications
        if self._pairs is not None:
            pairs = {ksid: one for ksid, one in configuration.applications.items() if is_pair(one)}
            streams = {ksid: one for ksid, one in configuration.applications.items() if ksid not in pairs}
            self._pairs.apply(pairs, configuration.application_stats)
        self._applications.apply(replace(configuration, applications=streams))
        self._pusher.changed()

    # State -------------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self._links.refresh()
        self._applications.refresh()
        if self._pairs is not None:
            self._pairs.refresh()

    def _state(self) -> NodeState:
        statuses = self._interfaces.statuses()
        out = statuses and all(status is InterfaceStatus.FAILED for status in statuses.values())
        return NodeState(
            status=NodeStatus.FAILURE if out else NodeStatus.OPERATING,
            lkms=self._config.lkms.listen,
            etsi004=self._server.endpoint,
            etsi014_url=self._rest.url if self._rest is not None else None,
            interfaces=statuses,
            links=self._links.states(),
            applications={**self._applications.states(), **(self._pairs.states() if self._pairs else {})},
        )

    def link_levels_changed(self, link: LinkId) -> None:
        self._links.levels_changed(link)
        self._pusher.changed()

    def alarm(self, link: LinkId | None, message: str) -> None:
        self._links.alarm(link, message)

    # Notifications -----------------------------------------------------------------------------------------------------

    def _notify(self, notification: Notification) -> None:
        """In order, and never in anyone's way."""
        try:
            self._notifications.put_nowait(notification)
        except asyncio.QueueFull:
            log.error("notification dropped type=%s", type(notification).__name__)

    async def _send(self) -> None:
        while True:
            notification = await self._notifications.get()
            try:
                await self._datastore.notify(notification)
            except NodeError as error:
                log.error("notification not sent type=%s error=%s", type(notification).__name__, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
