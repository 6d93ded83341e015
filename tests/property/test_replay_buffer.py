"""The buffer against plain lists: both agree about every read, every figure and every disposal, whatever is done to them."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from greedypipe.buffers.replay import CONTROL_CAPACITY, BuffersConfig, Policy, Read, ReplayBuffer

SETTINGS = settings(max_examples=60, stateful_step_count=25, report_multiple_bugs=False, deadline=None)


@dataclass(eq=False)
class Item:
    """One item and all that ever happened to it; the buffer under test takes it as payload."""

    control: bool
    sequence: int
    """Among the items of its sort."""
    reads: int = 0
    leases: int = 0
    stored: bool = True


class Model:
    """What every buffer does, whatever it reads next."""

    def __init__(self, capacity: int, max_reuse: int = 0) -> None:
        self.capacity = capacity
        self.max_reuse = max_reuse
        self.accepted: list[Item] = []
        self.held: list[Item] = []
        self.read_items: list[Item] = []
        self.disposed: list[Item] = []
        self.ages: list[int] = []
        self.fills: list[int] = []
        self.dropped = 0

    def accepts(self, control: bool) -> bool:
        raise NotImplementedError

    def choose(self) -> Item | None:
        raise NotImplementedError

    def removed_by_reading(self, item: Item) -> bool:
        raise NotImplementedError

    def insert(self, item: Item) -> None:
        self.held.append(item)
        self.accepted.append(item)

    def read(self) -> Item | None:
        item = self.choose()
        if item is None:
            return None
        if not item.control:
            item.reads += 1
            self.ages.append(self.age(item))
            self.fills.append(len(self.training))
        item.leases += 1
        self.read_items.append(item)
        if self.removed_by_reading(item):
            self.remove(item)
        return item

    def give_back(self, item: Item) -> None:
        item.leases -= 1
        self.dispose_if_free(item)

    def remove(self, item: Item) -> None:
        self.held.remove(item)
        item.stored = False
        self.dispose_if_free(item)

    def dispose_if_free(self, item: Item) -> None:
        if not item.stored and item.leases == 0:
            self.disposed.append(item)

    def age(self, item: Item) -> int:
        return sum(not later.control for later in self.accepted[self.accepted.index(item) + 1 :])

    @property
    def training(self) -> list[Item]:
        return [item for item in self.held if not item.control]

    @property
    def control(self) -> list[Item]:
        return [item for item in self.held if item.control]


class QueueModel(Model):
    """First in, first out, all sorts in one line."""

    def accepts(self, control: bool) -> bool:
        return len(self.held) < self.capacity

    def choose(self) -> Item | None:
        return self.held[0] if self.held else None

    def removed_by_reading(self, item: Item) -> bool:
        return True


class ReplayModel(Model):
    """Control first and once; training items by a rule, until newer ones take their place."""

    def __init__(self, capacity: int, pick: "Pick", max_reuse: int) -> None:
        super().__init__(capacity, max_reuse)
        self.pick = pick

    def accepts(self, control: bool) -> bool:
        return not control or len(self.control) < CONTROL_CAPACITY

    def insert(self, item: Item) -> None:
        if not item.control and len(self.training) == self.capacity:
            oldest = self.training[0]
            self.dropped += oldest.reads == 0
            self.remove(oldest)
        super().insert(item)

    def choose(self) -> Item | None:
        if self.control:
            return self.control[0]
        readable = [item for item in self.training if not self.max_reuse or item.reads < self.max_reuse]
        return self.pick(readable, self) if readable else None

    def removed_by_reading(self, item: Item) -> bool:
        return item.control


Pick = Callable[[list[Item], Model], Item]


def pick_least_used(readable: list[Item], model: Model) -> Item:
    return min(readable, key=lambda item: (item.reads, -item.sequence))


def pick_newest(readable: list[Item], model: Model) -> Item:
    return max(readable, key=lambda item: item.sequence)


def pick_as_published(readable: list[Item], model: Model) -> Item:
    """As the published code does: by slot index, where only slots beyond the write pointer count as old."""
    pointer = sum(not item.control for item in model.accepted) % model.capacity

    def rank(item: Item) -> int:
        slot = item.sequence % model.capacity
        return slot - model.capacity if slot > pointer else slot

    return min(readable, key=lambda item: (item.reads, -rank(item)))


def pick_uniformly(seed: int) -> Pick:
    generator = random.Random(seed)
    return lambda readable, model: readable[generator.randrange(len(readable))]


class BufferMachine(RuleBasedStateMachine):
    """Does the same to a buffer and to its model."""

    def __init__(self, make: Callable[[int, int, int], tuple[Policy, Model]]) -> None:
        super().__init__()
        self.make = make
        self.loans: list[tuple[Item, Read[Item]]] = []
        self.disposed: list[Item] = []

    @initialize(capacity=st.integers(1, 3), seed=st.integers(0, 3), max_reuse=st.integers(1, 2))
    def begin(self, capacity: int, seed: int, max_reuse: int) -> None:
        policy, self.model = self.make(capacity, seed, max_reuse)
        self.buffer: ReplayBuffer[Item] = ReplayBuffer(capacity, policy, dispose=self.disposed.append)

    @rule(control=st.sampled_from([False, False, True]))
    def insert(self, control: bool) -> None:
        item = Item(control, sum(other.control == control for other in self.model.accepted))
        insert = self.buffer.insert_control if control else self.buffer.insert
        if self.model.accepts(control):
            self.model.insert(item)
            insert(item, 0.0)
        else:
            with pytest.raises(TimeoutError, match="no room"):
                insert(item, 0.0)

    @rule(may_wait=st.booleans())
    def read(self, may_wait: bool) -> None:
        expected = self.model.read()
        if expected is None:
            assert self.buffer.try_read() is None
            with pytest.raises(TimeoutError, match="nothing to read"):
                self.buffer.read(0.0)
            return
        read = self.buffer.read(0.0) if may_wait else self.buffer.try_read()
        assert read is not None and read.item is expected
        assert (read.staleness, read.reuse) == (0 if expected.control else self.model.ages[-1], expected.reads)
        self.loans.append((expected, read))

    @precondition(lambda self: self.loans)
    @rule(number=st.integers(0, 3))
    def give_back(self, number: int) -> None:
        item, read = self.loans.pop(number % len(self.loans))
        self.model.give_back(item)
        read.done()

    @precondition(lambda self: self.model.max_reuse > 1)
    @rule()
    def cap_reuse(self) -> None:
        self.model.max_reuse = 1
        self.buffer.cap_reuse(1)

    @invariant()
    def both_agree(self) -> None:
        self.check_occupancy()
        self.check_disposals()
        self.check_figures()
        self.check_control()

    def check_occupancy(self) -> None:
        assert self.buffer.occupancy == len(self.model.training) / self.model.capacity <= 1

    def check_disposals(self) -> None:
        assert self.disposed == self.model.disposed
        assert len(set(self.disposed)) == len(self.disposed)
        assert not any(item.leases or item.stored for item in self.disposed)

    def check_figures(self) -> None:
        stats, model = self.buffer.stats(), self.model
        read = [item for item in model.read_items if not item.control]
        assert stats.inserted == sum(not item.control for item in model.accepted)
        assert (stats.reads, stats.distinct_reads, stats.dropped) == (len(read), len(set(read)), model.dropped)
        assert (stats.staleness_sum, stats.staleness_max) == (sum(model.ages), max(model.ages, default=0))
        assert stats.occupancy_sum == pytest.approx(sum(model.fills) / model.capacity)

    def check_control(self) -> None:
        read = [item for item in self.model.read_items if item.control]
        assert read == [item for item in self.model.accepted if item.control][: len(read)]

    def teardown(self) -> None:
        if not hasattr(self, "buffer"):
            return
        self.buffer.close(ConnectionError("gone"))
        item = Item(False, 0)
        calls: list[Callable[[], object]] = [
            lambda: self.buffer.insert(item, 0.0),
            lambda: self.buffer.insert_control(item, 0.0),
            lambda: self.buffer.read(0.0),
            self.buffer.try_read,
        ]
        for call in calls:
            with pytest.raises(ConnectionError, match="gone"):
                call()
        for lent, read in self.loans:
            self.model.give_back(lent)
            read.done()
        self.check_disposals()
        assert not any(item in self.disposed for item in self.model.held)


class QueueMachine(BufferMachine):
    """A queue gives back exactly what was put in."""

    @invariant()
    def reads_every_item_once_and_in_order(self) -> None:
        assert self.model.read_items == self.model.accepted[: len(self.model.read_items)]


def test_a_queue_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(lambda capacity, seed, max_reuse: (Policy.fifo(), QueueModel(capacity))), settings=SETTINGS
    )


@pytest.mark.parametrize("limited", [False, True], ids=["any_reuse", "max_reuse"])
@pytest.mark.parametrize("selector", ["least_used", "newest", "published_dgl", "uniform"])
def test_a_replay_buffer_agrees_with_the_model(selector: str, limited: bool) -> None:
    def make(capacity: int, seed: int, max_reuse: int) -> tuple[Policy, Model]:
        picks: dict[str, Pick] = {
            "least_used": pick_least_used,
            "newest": pick_newest,
            "published_dgl": pick_as_published,
            "uniform": pick_uniformly(seed),
        }
        limit = max_reuse if limited else 0
        config = BuffersConfig.model_validate({"policy": "replay", "selector": selector, "max_reuse": limit})
        return Policy.from_config(config, seed), ReplayModel(capacity, picks[selector], limit)

    run_state_machine_as_test(lambda: BufferMachine(make), settings=SETTINGS)
