import re

import application.ports.errors as port_errors
import domain.errors as tree
from domain.errors import FacepassError, PortError, leaves

OURS = [leaf for leaf in leaves() if leaf.__module__ in {tree.__name__, port_errors.__name__}]
"""Tests and third parties may have leaves of their own."""

DRAWN_NODE = re.compile(r"^(?P<trunk>[│ ]*)[├└]── (?P<name>\w+)(?: +(?P<text>\S.*))?$")


def drawn() -> dict[str, tuple[str, str | None]]:
    """Name, parent's name and text of every node that the docstring of `domain.errors` draws."""
    lines = (tree.__doc__ or "").splitlines()
    parents = {-1: "FacepassError"}
    nodes = {}
    for line in lines:
        node = DRAWN_NODE.match(line)
        if node is None:
            continue
        depth = len(node["trunk"]) // 4
        parents[depth] = node["name"]
        nodes[node["name"]] = (parents[depth - 1], node["text"])
    return nodes


def all_below(error: type[FacepassError]) -> list[type[FacepassError]]:
    return [found for child in error.__subclasses__() for found in (child, *all_below(child))]


DEFINED = [error for error in all_below(FacepassError) if error.__module__ == tree.__name__]


def test_every_leaf_has_a_snake_case_code() -> None:
    assert [leaf for leaf in OURS if not re.fullmatch(r"[a-z]+(_[a-z]+)*", leaf.code)] == []


def test_no_two_leaves_share_a_code() -> None:
    assert len({leaf.code for leaf in OURS}) == len(OURS) > 0


def test_every_error_says_in_a_docstring_what_it_means() -> None:
    assert [error for error in (*DEFINED, *OURS) if "__doc__" not in vars(error) or not error.__doc__] == []


def test_only_leaves_have_codes() -> None:
    assert [error for error in DEFINED if error.__subclasses__() and error.code] == []


def test_the_drawn_tree_has_exactly_the_classes_there_are() -> None:
    assert set(drawn()) == {error.__name__ for error in DEFINED}


def test_the_drawn_tree_hangs_each_class_below_its_base() -> None:
    bases = {error.__name__: error.__bases__[0].__name__ for error in DEFINED}
    assert {name: parent for name, (parent, _) in drawn().items()} == bases


def test_the_drawn_tree_gives_each_leaf_its_code() -> None:
    codes = {error.__name__: error.code for error in DEFINED if error in OURS and error is not PortError}
    assert {name: text for name, (_, text) in drawn().items() if name in codes} == codes


def test_what_ports_raise_hangs_below_port_error() -> None:
    names = {leaf.__name__ for leaf in leaves(PortError) if leaf in OURS}
    assert names == {"PortUnavailable", "PortBusy", "PortRejected"}
