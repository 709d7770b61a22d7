"""One user who takes all there is: others go on, and what nobody needs is not kept."""

import asyncio
import contextlib

from netconf_front import QKD, Client, Front

from qswitch.protocol import netconf

ENDLESS = "//*[" + "count(//*[" * 16 + "count(//*)>0" + "])>0" * 16 + "]"
COSTLY = f'<get><filter type="xpath" select="{ENDLESS}"/></get>'.encode()
SUBSCRIBE = '<create-subscription xmlns="urn:ietf:params:xml:ns:netconf:notification:1.0">{}</create-subscription>'
HEARS = f'<filter type="xpath" xmlns:q="{QKD}" select="/q:*[starts-with(local-name(), \'sdqkdn_\')]"/>'
OUT = f'<sdqkdn_interface_out xmlns="{QKD}"><qkd_interface><qkdi_id>{{}}</qkdi_id></qkd_interface></sdqkdn_interface_out>'
SMALL = f'<get-config><source><running/></source><filter><qkd_node xmlns="{QKD}"><qkdn_id/></qkd_node></filter></get-config>'


async def ask_again_and_again(client: Client) -> None:
    with contextlib.suppress(EOFError, TimeoutError):
        while True:
            client.send(netconf.build_rpc("1", COSTLY))
            await client.receive()


async def test_a_user_who_asks_for_the_world_delays_no_other(front: Front) -> None:
    async with front.connect() as client, front.connect() as listener, contextlib.AsyncExitStack() as stack:
        # A filter that is evaluated apart, as the costly ones are, and is answered at once.
        await listener.ok(SUBSCRIBE.format(HEARS))
        greedy = [await stack.enter_async_context(front.connect("monitor")) for _ in range(40)]
        asking = [asyncio.create_task(ask_again_and_again(one)) for one in greedy]
        clock, slowest = asyncio.get_running_loop().time, 0.0
        try:
            for number in range(20):
                begun = clock()
                await client.ok(SMALL)
                slowest = max(slowest, clock() - begun)
                await asyncio.to_thread(front.side, "notify", OUT.format(number))
                _, event = netconf.parse_notification(await listener.receive())
                assert event.findtext(f".//{{{QKD}}}qkdi_id") == str(number)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        assert slowest < 1.5


async def test_what_a_channel_brings_along_is_not_kept(front: Front) -> None:
    async with front.connect() as client:
        await client.ok(SMALL)
        before = front.resident()
        held = []
        for _ in range(8):
            environment = {f"V{number}": "x" * 20_000 for number in range(300)}
            held.append(await client.connection.open_session(subsystem="netconf", encoding=None, env=environment))
        await client.ok(SMALL)
        assert front.resident() - before < 24 << 20
