"""One node's NETCONF side for each test module: a real repository and a real `qkd-netconf`, without an agent."""

from collections.abc import Iterator

import pytest
from netconf_front import NACM, Front, serving

from qswitch.controller.config import NodeConfig
from qswitch.controller.model import Endpoint

# One may do all of it; one may write nothing; one sees nothing of 015, and may not subscribe.
USERS = ("controller", "reader", "blind")
BLIND = """
<nacm xmlns="urn:ietf:params:xml:ns:yang:ietf-netconf-acm">
  <groups><group><name>blind</name><user-name>blind</user-name></group></groups>
  <rule-list><name>blind</name><group>blind</group>
    <rule><name>no-015</name><module-name>etsi-qkd-sdn-node</module-name><access-operations>read</access-operations>
      <action>deny</action></rule>
    <rule><name>no-ears</name><module-name>notifications</module-name><rpc-name>create-subscription</rpc-name>
      <access-operations>exec</access-operations><action>deny</action></rule>
  </rule-list>
</nacm>"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with serving(tmp_path_factory.mktemp("node"), USERS, rules=NACM + BLIND) as front:
        yield front


@pytest.fixture
def node_config(front: Front) -> NodeConfig:
    return NodeConfig(
        "Norte",
        Endpoint("127.0.0.1", front.port),
        "controller",
        front.key_file("controller"),
        front.host_key.export_public_key().decode().strip(),
    )
