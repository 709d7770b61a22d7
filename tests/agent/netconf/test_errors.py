"""Words of libyang and sysrepo as NETCONF errors."""

import libyang
import pytest

from qswitch.agent.netconf.errors import from_libyang, qualify, split_path

NAMESPACES = {"m": "urn:m", "n": "urn:n"}


@pytest.mark.parametrize(
    ("path", "qualified", "modules"),
    [
        ("", "", ""),
        ("/m:a", "/m:a", "m"),
        ("/m:a/b/n:c/d", "/m:a/m:b/n:c/n:d", "mn"),
        ("/m:a/b[k='x/y']/c", "/m:a/m:b[m:k='x/y']/m:c", "m"),
        ("/m:a/b[k='x'][l=\"]/n:z\"]", "/m:a/m:b[m:k='x'][m:l=\"]/n:z\"]", "m"),
        ("/unknown:a/b", "", ""),
    ],
)
def test_paths_get_a_prefix_on_every_step(path: str, qualified: str, modules: str) -> None:
    expected = {name: NAMESPACES[name] for name in modules}
    assert qualify(path, lambda name: NAMESPACES.get(name, "")) == (qualified, expected)


def test_a_slash_in_quotes_separates_nothing() -> None:
    assert list(split_path("/a/b[c='/d/']/e")) == ["a", "b[c='/d/']", "e"]


@pytest.mark.parametrize(
    ("words", "tag", "app_tag", "info"),
    [
        ('Node "x" not found as a child of "y" node.', "unknown-element", "", (("bad-element", "x"),)),
        ('Invalid enumeration value "maybe".', "invalid-value", "", ()),
        ('List instance is missing its key "k".', "missing-element", "", (("bad-element", "k"),)),
        ('Must condition "a > b" not satisfied.', "operation-failed", "must-violation", ()),
        (
            'Invalid leafref value "x" - no target instance "/y" with the same value.',
            "data-missing",
            "instance-required",
            (),
        ),
        ("Something new", "operation-failed", "", ()),
    ],
)
def test_words(words: str, tag: str, app_tag: str, info: tuple[tuple[str, str], ...]) -> None:
    (error,) = from_libyang(libyang.LibyangError(words), lambda _: "").errors
    assert (error.tag, error.app_tag, error.info, error.message) == (tag, app_tag, info, words)
