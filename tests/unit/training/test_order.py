from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sdlora.training.inputs.order import EpochOrder


def one_shape(count):
    return [["square"] * count]


def indices(order, step):
    return [drawn.index for drawn in order.images_of(step)]


@given(
    shapes=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_every_image_is_seen_once_per_epoch(shapes, batch_size, seed):
    order, count = EpochOrder([shapes], batch_size, seed), len(shapes)
    seen = [index for step in range(count) for index in indices(order, step)]
    for epoch in range(batch_size):  # count steps of batch_size images are batch_size whole epochs
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(
    items=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12)), min_size=1, max_size=12),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_every_epoch_shows_every_image_as_often_as_it_repeats_whatever_the_shapes(items, batch_size, seed):
    order = EpochOrder([[shape for shape, _ in items]], batch_size, seed, [repeats for _, repeats in items])
    count = sum(repeats for _, repeats in items)
    assert len(order) == count
    seen = [index for step in range(2 * count) for index in indices(order, step)]
    for epoch in range(2 * batch_size):
        drawn = Counter(seen[epoch * count : (epoch + 1) * count])
        assert drawn == {index: repeats for index, (_, repeats) in enumerate(items)}


@given(counts=st.lists(st.integers(0, 60), min_size=2, max_size=6), seed=st.integers(0, 100))
def test_as_many_steps_as_possible_have_one_shape(counts, seed):
    shapes = [shape for shape, count in enumerate(counts) for _ in range(count)]
    if not shapes:
        return
    order = EpochOrder([shapes], 8, seed)
    steps = [{shapes[index] for index in indices(order, step)} for step in range(len(shapes) // 8)]
    mixed = sum(len(step) > 1 for step in steps)
    # At most what is left over of the shapes (fewer than a batch each), and one batch over the seam.
    assert mixed <= len([count for count in counts if count % 8]) + 1


def test_epochs_and_seeds_have_their_own_order():
    orders = [indices(EpochOrder(one_shape(20), 20, seed), epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_shapes_come_in_no_fixed_order():
    shapes = ["a"] * 80 + ["b"] * 80
    order = EpochOrder([shapes], 8, 0)
    sequence = "".join(shapes[indices(order, step)[0]] for step in range(20))
    assert "ab" in sequence and "ba" in sequence
    assert sequence != "".join(shapes[indices(order, step)[0]] for step in range(20, 40))


def test_an_image_is_seen_as_often_as_its_repeats_say():
    order = EpochOrder(one_shape(3), 6, 0, repeats=[1, 3, 2])
    assert len(order) == 6
    assert Counter(indices(order, 0)) == Counter(indices(order, 1)) == {0: 1, 1: 3, 2: 2}


def test_resolutions_take_turns_for_every_image():
    order = EpochOrder([["small"] * 6, ["large"] * 6], 6, 0)
    resolutions = [{drawn.index: drawn.resolution for drawn in order.images_of(step)} for step in range(2)]
    assert set(resolutions[0].values()) == {0, 1}  # both in every epoch
    assert all(resolutions[0][index] != resolutions[1][index] for index in range(6))


def test_a_step_does_not_depend_on_the_steps_before():
    shapes = ["a", "b", "c"] * 7
    walked = EpochOrder([shapes], 4, 0)
    for step in range(30):
        indices(walked, step)
    assert indices(walked, 30) == indices(EpochOrder([shapes], 4, 0), 30)
