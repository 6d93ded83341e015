"""Pipeline schedules with a flush, under the same costs: GPipe, 1F1B, and torch's interleaved and zero-bubble lists."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch.distributed.pipelining.schedules import ScheduleInterleaved1F1B, ScheduleInterleavedZeroBubble

from benchmarks.simulation.costs import LinkCost

FORWARD, FULL, INPUT, WEIGHT = "F", "B", "I", "W"


NO_LINK = LinkCost()


class Action(NamedTuple):
    """Forward, whole backward, or backward for the input or the weights alone, of one micro-batch in one chunk."""

    chunk: int
    kind: str
    micro_batch: int


@dataclass(frozen=True)
class Costs:
    """Seconds of one batch in one process; a chunk has an even share, a micro-batch too."""

    forward_s: float
    input_s: float
    weight_s: float

    def of(self, kind: str) -> float:
        """Seconds of one kind of action for the whole batch."""
        return {FORWARD: self.forward_s, INPUT: self.input_s, WEIGHT: self.weight_s, FULL: self.input_s + self.weight_s}[
            kind
        ]


def gpipe(processes: int, micro_batches: int) -> list[list[Action]]:
    """All forwards, then all backwards (Huang et al. 2019)."""
    numbers = range(micro_batches)
    return [[Action(rank, kind, number) for kind in (FORWARD, FULL) for number in numbers] for rank in range(processes)]


def one_f_one_b(processes: int, micro_batches: int) -> list[list[Action]]:
    """One forward, one backward, after as many forwards as there are processes behind (Narayanan et al. 2021)."""
    lists = []
    for rank in range(processes):
        ahead = min(processes - 1 - rank, micro_batches)
        actions = [Action(rank, FORWARD, number) for number in range(ahead)]
        for number in range(micro_batches):
            if number + ahead < micro_batches:
                actions.append(Action(rank, FORWARD, number + ahead))
            actions.append(Action(rank, FULL, number))
        lists.append(actions)
    return lists


def interleaved(processes: int, micro_batches: int) -> list[list[Action]]:
    """torch's Interleaved1F1B with two chunks per process."""
    return _torch_lists(ScheduleInterleaved1F1B, processes, micro_batches)


def zero_bubble(processes: int, micro_batches: int) -> list[list[Action]]:
    """torch's InterleavedZeroBubble with two chunks per process."""
    return _torch_lists(ScheduleInterleavedZeroBubble, processes, micro_batches)


SCHEDULES = {"GPipe": gpipe, "1F1B": one_f_one_b, "interleaved": interleaved, "zero-bubble": zero_bubble}


def _torch_lists(schedule_class: type, processes: int, micro_batches: int) -> list[list[Action]]:
    """The action lists that the class would run. Its constructor wants real stages of real processes, of which the lists
    use four numbers."""
    rounds = max(1, micro_batches // processes)
    if micro_batches % rounds:
        raise ValueError(f"{micro_batches} micro-batches cannot be dealt to {rounds} rounds of {processes} processes")
    schedule = schedule_class.__new__(schedule_class)
    schedule.n_local_stages, schedule.pp_group_size = 2, processes
    schedule._n_microbatches, schedule.microbatches_per_round = micro_batches, micro_batches // rounds
    lists = [schedule._calculate_single_rank_operations(rank) for rank in range(processes)]
    return [
        [Action(one.stage_index, one.computation_type.value, one.microbatch_index) for one in actions if one]
        for actions in lists
    ]


@dataclass(frozen=True)
class Flushed:
    """One batch: seconds from the first action to the last, and the share of all processes' time without work."""

    seconds: float
    bubble: float


def run_lists(lists: Sequence[Sequence[Action]], costs: Sequence[Costs], link: LinkCost = NO_LINK) -> Flushed:
    """Lets every process work its list in order, each action as soon as what it needs has arrived.

    Args:
        costs: Per process.
        link: For activations and gradients of a whole batch; sending takes no time of the processes.

    Raises:
        ValueError: The lists wait for each other in a ring.
    """
    micro_batches = 1 + max(action.micro_batch for actions in lists for action in actions)
    owners = {action.chunk: rank for rank, actions in enumerate(lists) for action in actions}
    chunks = len(owners)
    transfer_s = link.latency_s + link.sent_bytes / micro_batches / link.bytes_per_s
    share = len(lists) / chunks / micro_batches
    done_s: dict[Action, float] = {}
    blocked: dict[Action, list[int]] = defaultdict(list)
    position, free_s, work = [0] * len(lists), [0.0] * len(lists), list(range(len(lists)))
    busy_s = 0.0
    while work:
        rank = work.pop()
        while position[rank] < len(lists[rank]):
            action = lists[rank][position[rank]]
            needs = _needs(action, chunks)
            missing = next((need for need in needs if _done(need, done_s) is None), None)
            if missing:
                blocked[missing].append(rank)
                break
            arrival_s = max(
                (_done(need, done_s) + (transfer_s if owners[need.chunk] != rank else 0.0) for need in needs), default=0.0
            )  # type: ignore[operator]
            seconds = costs[rank].of(action.kind) * share
            busy_s += seconds
            free_s[rank] = done_s[action] = max(free_s[rank], arrival_s) + seconds
            position[rank] += 1
            for name in (action, action._replace(kind=FULL), action._replace(kind=INPUT)):
                work += blocked.pop(name, [])
    if any(at < len(actions) for at, actions in zip(position, lists, strict=True)):
        raise ValueError("the lists wait for each other in a ring")
    seconds = max(free_s)
    return Flushed(seconds, 1 - busy_s / (seconds * len(lists)))


def _done(need: Action, done_s: dict[Action, float]) -> float | None:
    """When a gradient was there, whether it came from a whole backward or from that for the input alone."""
    if need.kind == FORWARD:
        return done_s.get(need)
    whole = done_s.get(need._replace(kind=FULL))
    return whole if whole is not None else done_s.get(need._replace(kind=INPUT))


def _needs(action: Action, chunks: int) -> list[Action]:
    chunk, kind, number = action
    if kind == FORWARD:
        return [Action(chunk - 1, FORWARD, number)] if chunk else []
    if kind == WEIGHT:
        return [Action(chunk, INPUT, number)]
    return [Action(chunk, FORWARD, number), *([Action(chunk + 1, FULL, number)] if chunk < chunks - 1 else [])]
