"""Which stored item is read next: by the selectors alone, and by a store that was configured to use them."""

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from greedypipe.buffers.replay import BuffersConfig, Policy, ReplayBuffer
from greedypipe.buffers.selectors import Entry, Selector, capped, least_used, newest, oldest, published_dgl, uniform


def entries(picture: str) -> list[Entry]:
    """ "A0 B2" is A, unread, and then B, read twice; the oldest comes first."""
    return [
        Entry(word[0], position=number + 1, sequence=number, reuse=int(word[1:]))
        for number, word in enumerate(picture.split())
    ]


def pick(selector: Selector, picture: str, capacity: int = 3) -> str | None:
    entry = selector(entries(picture), capacity)
    return entry.item if entry else None


def run(config: dict[str, Any], operations: str, seed: int = 0) -> str:
    """What a store of three gives: "A B r" inserts A and B and reads once; "-" where there is nothing to read."""
    unlimited = {} if config.get("policy") == "fifo" else {"policy": "replay", "max_reuse": 0}
    policy = Policy.from_config(BuffersConfig.model_validate(unlimited | config), seed)
    buffer: ReplayBuffer[str] = ReplayBuffer(3, policy)
    reads = []
    for operation in operations.split():
        if operation == "r":
            read = buffer.try_read()
            reads.append(read.item if read else "-")
        else:
            buffer.insert(operation, 0.0)
    return " ".join(reads)


@pytest.mark.parametrize(
    ("selector", "picture", "picked"),
    [
        (oldest, "A0", "A"),
        (oldest, "A9 B0 C0", "A"),
        (newest, "A0", "A"),
        (newest, "A0 B0 C9", "C"),
        (least_used, "A0", "A"),
        (least_used, "A0 B0 C0", "C"),  # ties go to the newest
        (least_used, "A0 B0 C1", "B"),
        (least_used, "A1 B2 C1", "C"),
        (least_used, "A1 B2 C2", "A"),
        (published_dgl, "A0", "A"),
        (published_dgl, "A0 B0", "B"),  # not full: as least_used
        (published_dgl, "A0 B0 C0", "A"),  # full: the oldest ranks as the newest
        (published_dgl, "A1 B1 C0", "C"),  # the fewest reads go before the rank
        (published_dgl, "A1 B0 C0", "C"),
    ],
)
def test_the_selector_picks_by_its_rule(selector: Selector, picture: str, picked: str) -> None:
    assert pick(selector, picture) == picked


def test_a_ring_of_one_slot_is_read_alike_under_both_dgl_rules() -> None:
    assert pick(published_dgl, "A5", capacity=1) == pick(least_used, "A5", capacity=1) == "A"


@pytest.mark.parametrize("selector", [oldest, newest, least_used, published_dgl, uniform(0), capped(least_used, 2)])
def test_a_selector_changes_nothing(selector: Selector) -> None:
    stored = entries("A0 B1 C0")
    before = [(entry.item, entry.position, entry.sequence, entry.reuse, entry.leases, entry.stored) for entry in stored]
    selector(stored, 3)
    after = [(entry.item, entry.position, entry.sequence, entry.reuse, entry.leases, entry.stored) for entry in stored]
    assert after == before


def test_uniform_draws_are_a_function_of_the_seed() -> None:
    def draws(seed: int) -> list[str | None]:
        selector = uniform(seed)
        return [pick(selector, "A0 B0 C0") for _ in range(50)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_uniform_picks_every_entry_about_equally_often_whatever_its_use() -> None:
    selector = uniform(0)
    counts = Counter(pick(selector, "A0 B5 C9") for _ in range(3000))
    assert set(counts) == {"A", "B", "C"} and all(900 < count < 1100 for count in counts.values())


@pytest.mark.parametrize(
    ("selector", "max_reuse", "picture", "picked"),
    [
        (newest, 1, "A0 B0 C1", "B"),
        (newest, 2, "A0 B0 C1", "C"),
        (newest, 1, "A1 B1 C1", None),
        (least_used, 2, "A1 B2 C2", "A"),
        (least_used, 2, "A2 B2 C3", None),
        (uniform(0), 1, "A1 B0 C1", "B"),
    ],
)
def test_an_entry_read_often_enough_is_not_read_again(
    selector: Selector, max_reuse: int, picture: str, picked: str | None
) -> None:
    assert pick(capped(selector, max_reuse), picture) == picked


@pytest.mark.parametrize(
    ("picture", "picked"),
    [
        ("A0 B1 C0", "A"),  # the ring is full, so the slot at the pointer ranks as the newest, whether B may be read or not
        ("A1 B0 C0", "C"),  # A is used up: nothing but A stands at the pointer
        ("A1 B1 C1", None),
    ],
)
def test_a_cap_on_reuse_leaves_the_published_ranking_as_it_is(picture: str, picked: str | None) -> None:
    assert pick(capped(published_dgl, 1), picture) == picked


@pytest.mark.parametrize(
    ("operations", "correct", "published"),
    [
        ("A B r r r", "B A B", "B A B"),
        ("A B C r r r r", "C B A C", "A C B A"),
        ("A B C D r r r r", "D C B D", "B D C B"),
        ("A B C r D r r r", "C D B D", "A B D C"),
        ("A B C r r D r r r r", "C B D D C B", "A C B D B D"),
        ("r A r", "- A", "- A"),
    ],
)
def test_dgl_vectors_of_three_slots_are_read_as_described_and_as_published(
    operations: str, correct: str, published: str
) -> None:
    assert run({"selector": "least_used"}, operations) == correct
    assert run({"selector": "published_dgl"}, operations) == published


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        ({"policy": "fifo"}, "A B C -"),
        ({}, "C B A C"),
        ({"selector": "published_dgl"}, "A C B A"),
        ({"selector": "newest"}, "C C C C"),
        ({"max_reuse": 1}, "C B A -"),
    ],
)
def test_the_configuration_decides_what_is_read(config: dict[str, Any], reads: str) -> None:
    assert run(config, "A B C r r r r") == reads


def test_uniform_reads_are_a_function_of_the_seed() -> None:
    operations = "A B C" + 30 * " r"
    assert run({"selector": "uniform"}, operations, seed=1) == run({"selector": "uniform"}, operations, seed=1)
    assert run({"selector": "uniform"}, operations, seed=1) != run({"selector": "uniform"}, operations, seed=2)


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"max_reuse": -1}, {"policy": "lifo"}, {"selector": "x"}, {"size": 3}])
def test_an_impossible_section_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        BuffersConfig(**wrong)
