"""Split into training and held-out images, stable as the collection grows. Look-alikes share a side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdlora.data.config import DataConfig
from sdlora.store.records import Split

LEAK = "split_leak"
"""Name of the check that rejects an image whose look-alikes are on both sides already."""


@dataclass(frozen=True)
class Member:
    """Image to be assigned to a side. A side from an earlier snapshot (`split`) is kept."""

    member_id: int
    sha256: str
    split: Split | None


@dataclass(frozen=True)
class Sides:
    """Outcome of the split: side by member id, and for each leaking image a look-alike on the other side."""

    splits: Mapping[int, Split]
    leaks: Mapping[int, Member]


def assign_sides(members: Iterable[Member], look_alikes: Sequence[tuple[int, int]], config: DataConfig) -> Sides:
    """Assign every image to a side of the split.

    Images connected by a chain of look-alikes form a group. A hash of its smallest SHA-256 decides the side of a group
    without a side. New members of a group join the side of its old members. If old members are on both sides, each
    new member joins one of its own look-alikes. Finally every pair is checked: of two look-alikes on different sides
    the image that joined later is left out.

    Args:
        look_alikes: pairs of member ids.
    """
    by_id = {member.member_id: member for member in sorted(members, key=lambda member: member.member_id)}
    edges = _adjacency(look_alikes, by_id)
    splits: dict[int, Split] = {member_id: member.split for member_id, member in by_id.items() if member.split}
    new_groups = []
    for group in _connected_groups([member_id for member_id in by_id if member_id not in splits], edges):
        sides = {by_id[other].split for member_id in group for other in edges.get(member_id, ())} - {None}
        if not sides:
            new_groups.append(group)
        else:
            _join_neighbours(group, edges, splits)
    splits.update(_split_by_hash(new_groups, by_id, list(splits.values()), config))
    leaks = _leaks(by_id, edges, splits)
    return Sides({member_id: side for member_id, side in splits.items() if member_id not in leaks}, leaks)


def _split_by_hash(
    groups: Sequence[Sequence[int]], by_id: Mapping[int, Member], assigned: Sequence[Split], config: DataConfig
) -> dict[int, Split]:
    """Assign new groups by a hash in [0, 1): groups with a hash below `held_out_fraction` are held out.

    Few images seldom match the fraction. If a side is below its minimum, the limit moves to the next hash until both
    minima are met. Only images outside every snapshot are affected.
    """
    ordered = sorted((_unit_hash(min(by_id[member_id].sha256 for member_id in group)), group) for group in groups)
    cut = sum(value < config.held_out_fraction for value, _ in ordered)
    held_out = assigned.count("held_out") + sum(len(group) for _, group in ordered[:cut])
    train = assigned.count("train") + sum(len(group) for _, group in ordered[cut:])
    while held_out < config.min_held_out_images and cut < len(ordered):
        size = len(ordered[cut][1])
        if train - size < config.min_train_images:
            break
        cut, held_out, train = cut + 1, held_out + size, train - size
    while train < config.min_train_images and cut > 0:
        size = len(ordered[cut - 1][1])
        if held_out - size < config.min_held_out_images:
            break
        cut, held_out, train = cut - 1, held_out - size, train + size
    sides: dict[int, Split] = {}
    for position, (_, group) in enumerate(ordered):
        sides.update(dict.fromkeys(group, "held_out" if position < cut else "train"))
    return sides


def _unit_hash(sha256: str) -> float:
    return int.from_bytes(hashlib.sha256(f"split {sha256}".encode()).digest()[:6]) / 2**48


def _adjacency(pairs: Sequence[tuple[int, int]], by_id: Mapping[int, Member]) -> dict[int, list[int]]:
    edges: dict[int, list[int]] = {}
    for first_id, second_id in sorted(pairs):
        if first_id in by_id and second_id in by_id:
            edges.setdefault(first_id, []).append(second_id)
            edges.setdefault(second_id, []).append(first_id)
    return edges


def _connected_groups(member_ids: Sequence[int], edges: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Return the connected groups among these images, each in the order in which they joined."""
    ungrouped = set(member_ids)
    groups = []
    for start in member_ids:
        if start not in ungrouped:
            continue
        ungrouped.discard(start)
        group = [start]
        for member_id in group:  # the list grows during iteration
            reached = [other for other in edges.get(member_id, ()) if other in ungrouped]
            ungrouped.difference_update(reached)
            group += reached
        groups.append(sorted(group))
    return groups


def _join_neighbours(group: Sequence[int], edges: Mapping[int, Sequence[int]], splits: dict[int, Split]) -> None:
    """Assign each image of a group to the side of a neighbour that has one."""
    unassigned = list(group)
    while unassigned:
        member_id = next(
            candidate_id for candidate_id in unassigned if any(other in splits for other in edges[candidate_id])
        )
        splits[member_id] = next(splits[other] for other in edges[member_id] if other in splits)
        unassigned.remove(member_id)


def _leaks(
    by_id: Mapping[int, Member], edges: Mapping[int, Sequence[int]], splits: Mapping[int, Split]
) -> dict[int, Member]:
    """Return the images to leave out. Images with an earlier side take precedence, then images that joined earlier."""
    leaks: dict[int, Member] = {}
    placed: set[int] = set()
    for member_id in sorted(by_id, key=lambda member_id: (by_id[member_id].split is None, member_id)):
        across = [other for other in edges.get(member_id, ()) if other in placed and splits[other] != splits[member_id]]
        if across:
            leaks[member_id] = by_id[across[0]]
        else:
            placed.add(member_id)
    return leaks
