from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from sdlora.data.config import DataConfig
from sdlora.data.split import Member, assign_sides

PURE = DataConfig(min_train_images=1, min_held_out_images=1)


def _members(count: int, start: int = 0) -> list[Member]:
    return [
        Member(number, hashlib.sha256(str(number).encode()).hexdigest(), None) for number in range(start, start + count)
    ]


edges = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)).filter(lambda pair: pair[0] != pair[1]), max_size=30)


@settings(deadline=None, max_examples=150)
@given(edges=edges, arrivals=st.lists(st.integers(1, 12), min_size=1, max_size=4), shuffle=st.randoms())
def test_growing_never_moves_an_image_and_never_parts_look_alikes(edges, arrivals, shuffle) -> None:
    known: dict[int, str] = {}
    present: list[Member] = []
    for size in arrivals:
        present += _members(size, start=len(present))
        members = [Member(one.member_id, one.sha256, known.get(one.member_id)) for one in present]
        shuffle.shuffle(members)
        sides = assign_sides(members, edges, PURE)
        assert sides.splits.keys() | sides.leaks.keys() == {one.member_id for one in present}
        assert not sides.splits.keys() & sides.leaks.keys()
        for one, other in edges:
            if one in sides.splits and other in sides.splits:
                assert sides.splits[one] == sides.splits[other]
        assert {one: sides.splits[one] for one in known} == known
        known.update(sides.splits)


@settings(deadline=None, max_examples=50)
@given(shuffle=st.randoms(), edges=edges)
def test_the_order_of_images_and_pairs_does_not_matter(shuffle, edges) -> None:
    members = _members(40)
    expected = assign_sides(members, edges, PURE)
    shuffle.shuffle(members)
    shuffle.shuffle(edges)
    assert assign_sides(members, edges, PURE) == expected


def test_images_that_come_one_by_one_end_where_they_would_together() -> None:
    members = _members(300)
    together = assign_sides(members, [], PURE).splits
    known: dict[int, str] = {}
    for end in range(20, 301, 20):
        batch = [Member(one.member_id, one.sha256, known.get(one.member_id)) for one in members[:end]]
        known = dict(assign_sides(batch, [], PURE).splits)
    assert known == together
    assert 0.15 < list(together.values()).count("held_out") / 300 < 0.35


def test_a_handful_of_images_still_fills_both_sides() -> None:
    config = DataConfig(min_train_images=8, min_held_out_images=4)
    for start in range(0, 2000, 12):
        sides = list(assign_sides(_members(12, start), [], config).splits.values())
        assert (sides.count("train"), sides.count("held_out")) == (8, 4)


def test_an_image_between_both_sides_is_left_out_with_the_one_it_would_leak_to() -> None:
    members = [Member(1, "a" * 64, "train"), Member(2, "b" * 64, "held_out"), Member(3, "c" * 64, None)]
    sides = assign_sides(members, [(1, 3), (2, 3)], PURE)
    assert sides.splits == {1: "train", 2: "held_out"}
    assert sides.leaks[3] in members[:2]
