"""The NETCONF codec under whatever hypothesis thinks of: streams of almost-frames, messages that are almost good ones."""

from pathlib import Path

from hypothesis import given, settings, strategies as st
from netconf_properties import LIMIT, check_framing, check_message

CORPUS = Path(__file__).with_name("corpus")
SEEDS = [file.read_bytes() for file in sorted((CORPUS / "message").iterdir())]

# What streams are made of: whole and broken markers, chunk headers and ends, and data at the edge of the limit.
FRAMES = st.one_of(
    st.sampled_from([b"]]>]]>", b"]]>", b"]", b"\n", b"\n#", b"\n##\n", b"\n#0\n", b"\n#01\n", b"\n#9999999999\n"]),
    st.binary(min_size=1, max_size=LIMIT + 1).map(lambda data: b"\n#%d\n%b" % (len(data), data)),
    st.binary(max_size=8),
    st.integers(LIMIT - 2, LIMIT + 2).map(lambda size: b"x" * size),
)
STREAMS = st.lists(FRAMES, max_size=12).map(b"".join)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@settings(max_examples=500, deadline=None)
@given(STREAMS, st.booleans(), SIZES)
def test_packet_boundaries_change_nothing(data: bytes, chunks: bool, sizes: list[int]) -> None:
    check_framing(data, chunks, sizes)


TOKENS = [
    *(b"<", b">", b"/>", b"</", b"&", b"&lt;", b"&x;", b"&#0;", b"&#xD800;", b"\x00", b"\xff", b"\xc0\x80", b"\xef\xbb\xbf"),
    *(b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?xml?>", b"<?p i?>", b"<!DOCTYPE a [", b'<!ENTITY x "y">', b"]>"),
    *(b' xmlns=""', b' xmlns:a="urn:a"', b" a:b='c'", b' xml:lang="en"', b' message-id="1"', b' xmlns:nc="', b"nc:"),
    *(b"<session-id>99999999999</session-id>", b"<get/>", b"<a>" * 300, b"a" * 5000, b"\r\n\t ", "é\u2028𝔘\ufffe".encode()),
]
MUTATIONS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.sampled_from(TOKENS)), max_size=5)


def mutated(seed: bytes, mutations: list[tuple[float, int, bytes]]) -> bytes:
    for where, removed, added in mutations:
        at = int(where * len(seed))
        seed = seed[:at] + added + seed[at + removed :]
    return seed


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(SEEDS), MUTATIONS)
def test_almost_good_messages_are_read_or_refused(seed: bytes, mutations: list[tuple[float, int, bytes]]) -> None:
    check_message(mutated(seed, mutations))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_anything_is_read_or_refused(data: bytes) -> None:
    check_message(data)
