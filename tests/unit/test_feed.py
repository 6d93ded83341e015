"""The messages of stage 0, in their exact order."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from greedypipe.pipeline.task import Classification
from greedypipe.workers.data.batch import LoadedBatch
from greedypipe.workers.data.sets.synthetic import SyntheticConfig
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.ending import AtOnce, Ending, Stops
from greedypipe.workers.feed import Calendar, Feed, Start
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus

LETTERS = {Kind.TRAIN: "T", Kind.EVALUATE: "E", Kind.EVALUATED: "M", Kind.CHECKPOINT: "C", Kind.END: "END"}


class Numbers:
    """A source of any proportions, whose batches hold their number."""

    def __init__(self, steps_per_epoch: int, num_evaluation_batches: int, status: StageStatus | None = None) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.num_evaluation_batches = num_evaluation_batches
        self.status = status
        self.asked: list[int] = []
        self.said: list[Activity | None] = []
        self.closed = 0

    def training_batches(self, first: int = 0) -> Iterator[LoadedBatch]:
        while True:
            self.asked.append(first)
            self.said.append(self.status.activity if self.status else None)
            yield self._batch(first)
            first += 1

    def evaluation_batches(self) -> Iterator[LoadedBatch]:
        return map(self._batch, range(self.num_evaluation_batches))

    def close(self) -> None:
        self.closed += 1

    @staticmethod
    def _batch(number: int) -> LoadedBatch:
        return LoadedBatch(number, torch.full((2, 1, 1, 1), float(number)), torch.tensor([number, number]))


def make_status() -> StageStatus:
    return StageStatus(Seat(0, 0), blocks=[0], pid=0, host="here")


def make_feed(
    source: "Numbers | BatchSource",
    epochs: int,
    *,
    every_epochs: int = 1,
    spread: bool = False,
    may_stop: Callable[[], bool] = lambda: True,
    num_classes: int = 3,
    status: StageStatus | None = None,
    start: Start | None = None,
    checkpoint_steps: int = 0,
    must_stop: Callable[[], bool] = lambda: False,
    ending: Ending | None = None,
) -> Feed:
    steps = source.steps_per_epoch
    return Feed(
        source,  # type: ignore[arg-type]
        Calendar(epochs * steps, steps, every_epochs, checkpoint_steps, start or Start()),
        Classification((1, 4, 4), num_classes),
        spread_evaluation=spread,
        stops=Stops(may_stop, must_stop, ending or AtOnce()),
        status=status or make_status(),
    )


def messages(feed: Feed) -> list[Message]:
    return [delivery.message for delivery in feed]


def picture(feed: Feed) -> str:
    """T: training batch, E: evaluation batch, M: end of the pass after that epoch."""
    return " ".join(f"{LETTERS[message.kind]}{message.batch_id}" for message in messages(feed))


def tiny_source() -> BatchSource:
    """Ten samples in batches of 4, 4 and 2; two more are held out, in one batch."""
    config = SyntheticConfig(shape=[1, 4, 4], classes=3, samples=10, batch_size=4, augment="none")
    return BatchSource(config, seed=1)


def test_with_queues_an_evaluation_pass_stands_after_every_epoch() -> None:
    assert picture(make_feed(tiny_source(), epochs=3)) == "T0 T1 T2 E0 M1 T3 T4 T5 E0 M2 T6 T7 T8 E0 M3 END9"


@pytest.mark.parametrize(
    ("epochs", "every_epochs", "expected"),
    [
        (1, 1, "T0 T1 E0 E1 M1 END2"),
        (1, 5, "T0 T1 E0 E1 M1 END2"),
        (4, 2, "T0 T1 T2 T3 E0 E1 M2 T4 T5 T6 T7 E0 E1 M4 END8"),
        (5, 2, "T0 T1 T2 T3 E0 E1 M2 T4 T5 T6 T7 E0 E1 M4 T8 T9 E0 E1 M5 END10"),
        (3, 3, "T0 T1 T2 T3 T4 T5 E0 E1 M3 END6"),
    ],
)
def test_evaluation_comes_every_few_epochs_and_always_after_the_last(epochs: int, every_epochs: int, expected: str) -> None:
    assert picture(make_feed(Numbers(2, 2), epochs, every_epochs=every_epochs)) == expected


@pytest.mark.parametrize(
    ("steps", "tests", "epochs", "every_epochs", "expected"),
    [
        (4, 2, 2, 1, "T0 T1 T2 T3 E0 T4 E1 T5 M1 T6 T7 E0 E1 M2 END8"),
        (3, 2, 2, 1, "T0 T1 T2 E0 T3 E1 T4 M1 T5 E0 E1 M2 END6"),
        (3, 1, 3, 2, "T0 T1 T2 T3 T4 T5 E0 T6 M2 T7 T8 E0 M3 END9"),
        # The test part is larger than an epoch: more than one of its batches at a time.
        (2, 2, 2, 1, "T0 T1 E0 E1 T2 M1 T3 E0 E1 M2 END4"),
        (2, 5, 2, 1, "T0 T1 E0 E1 E2 T2 E3 E4 M1 T3 E0 E1 E2 E3 E4 M2 END4"),
        (1, 3, 3, 1, "T0 E0 E1 E2 M1 T1 E0 E1 E2 M2 T2 E0 E1 E2 M3 END3"),
    ],
)
def test_with_replay_evaluation_takes_turns_with_training_and_the_last_pass_comes_in_one_piece(
    steps: int, tests: int, epochs: int, every_epochs: int, expected: str
) -> None:
    assert picture(make_feed(Numbers(steps, tests), epochs, every_epochs=every_epochs, spread=True)) == expected


def test_spread_evaluation_of_a_real_source() -> None:
    feed = make_feed(tiny_source(), epochs=3, spread=True)
    assert picture(feed) == "T0 T1 T2 E0 T3 M1 T4 T5 E0 T6 M2 T7 T8 E0 M3 END9"


@pytest.mark.parametrize("spread", [False, True])
def test_no_batch_is_lost_or_doubled_whatever_the_proportions(spread: bool) -> None:
    for steps, tests, epochs, every in itertools.product(range(1, 5), range(1, 8), (1, 2, 4), (1, 3)):
        may_stop = iter([False, False, True, True]).__next__
        feed = make_feed(Numbers(steps, tests), epochs, every_epochs=every, spread=spread, may_stop=may_stop)
        words = picture(feed).split()
        total = steps * epochs
        assert [word for word in words if word[0] == "T"] == [f"T{number}" for number in range(total + 2)]
        marks = [*range(every, epochs, every), epochs]
        one_pass = [f"E{number}" for number in range(tests)]
        assert [word for word in words if word[0] in "EM"] == [
            *(word for mark in marks for word in [*one_pass, f"M{mark}"]),
            f"END{total}",
        ]
        for mark in marks[:-1]:
            assert words.index(f"M{mark}") > words.index(f"T{mark * steps - 1}")


def test_training_goes_on_beyond_the_budget_until_it_may_stop() -> None:
    asked: list[str] = []
    answers = iter([False, False, False, True, True])

    def may_stop() -> bool:
        asked.append("?")
        return next(answers)

    feed = make_feed(Numbers(2, 1), epochs=2, spread=True, may_stop=may_stop)
    seen = []
    for delivery in feed:
        seen.append(f"{LETTERS[delivery.message.kind]}{delivery.message.batch_id}{''.join(asked)}")
        asked.clear()
    # No evaluation beyond the budget but the last pass, which counts as that of the last epoch.
    assert " ".join(seen) == "T0 T1 E0 T2 M1 T3 T4? T5? T6? E0? M2 END4?"


def test_stage_0_rests_behind_each_batch_that_it_only_hands_on(monkeypatch: pytest.MonkeyPatch) -> None:
    takes_s = [7.0, 7.0, 0.125, 0.0625, 10.0]
    now_s, seen, rests = 0.0, list[int](), list[tuple[int, float]]()
    monkeypatch.setattr("greedypipe.workers.feed.time.perf_counter", lambda: now_s)
    monkeypatch.setattr("greedypipe.workers.feed.time.sleep", lambda seconds: rests.append((seen[-1], seconds)))
    may_stop = iter([False, False, False, True, True]).__next__
    for delivery in make_feed(Numbers(2, 1), epochs=1, spread=True, may_stop=may_stop):
        if delivery.message.kind == Kind.TRAIN:
            seen.append(delivery.message.batch_id)
            now_s += takes_s[seen[-1]]
    assert rests == [(2, 0.25), (3, 0.125), (4, 0.5)], "twice what the batch took, and at most half a second"


def test_the_last_pass_is_made_again_where_a_stage_has_come_back_meanwhile() -> None:
    may_stop = iter([True, False, False, True, True]).__next__
    feed = make_feed(Numbers(2, 1), epochs=1, spread=True, may_stop=may_stop)
    assert picture(feed) == "T0 T1 E0 M1 T2 T3 E0 M1 END2"


def test_training_messages_carry_the_batches_of_the_source() -> None:
    feed = make_feed(tiny_source(), epochs=2)
    expected = tiny_source()
    training = [message for message in messages(feed) if message.kind == Kind.TRAIN]
    assert [message.rows for message in training] == [4, 4, 2, 4, 4, 2]
    for message in training:
        batch = expected.training_batch(message.batch_id)
        assert set(message.tensors) == {"labels", "activation", "image"}
        assert torch.equal(message.tensors["labels"], batch.labels)
        assert torch.equal(message.tensors["activation"], batch.images)
        assert torch.equal(message.tensors["image"], batch.images)


def test_evaluation_messages_carry_the_held_out_part_and_an_empty_ensemble() -> None:
    (evaluation,) = [message for message in messages(make_feed(tiny_source(), epochs=1)) if message.kind == Kind.EVALUATE]
    (batch,) = tiny_source().test_batches()
    assert set(evaluation.tensors) == {"labels", "activation", "ensemble"}
    assert torch.equal(evaluation.tensors["labels"], batch.labels)
    assert torch.equal(evaluation.tensors["activation"], batch.images)
    assert torch.equal(evaluation.tensors["ensemble"], torch.zeros(2, 3))


def test_marks_carry_no_tensors_and_nothing_is_stale() -> None:
    deliveries = list(make_feed(Numbers(2, 1), epochs=2))
    marks = [item.message for item in deliveries if item.message.kind in (Kind.EVALUATED, Kind.END)]
    assert [mark.rows for mark in marks] == [0, 0, 0] and all(not mark.tensors for mark in marks)
    assert {(item.staleness, item.reuse) for item in deliveries} == {(0, 1)}


def test_the_status_says_whether_the_stage_computes_or_waits_for_data() -> None:
    status = make_status()
    source = Numbers(2, 1, status)
    while_computing = [status.activity for _ in make_feed(source, epochs=2, status=status)]
    assert set(while_computing) == {Activity.COMPUTING}
    assert set(source.said[1:]) == {Activity.WAIT_DATA}


def test_a_batch_is_made_only_when_it_is_asked_for() -> None:
    source = Numbers(3, 1)
    stream = iter(make_feed(source, epochs=2))
    for _ in range(2):
        next(stream)
    assert source.asked == [0, 1]


def test_closing_the_feed_closes_its_source() -> None:
    source = Numbers(2, 1)
    make_feed(source, epochs=1).close()
    assert source.closed == 1


def test_a_feed_waits_for_no_stage_and_holds_nothing() -> None:
    feed = make_feed(Numbers(2, 1), epochs=1)
    assert picture(feed) == "T0 T1 E0 M1 END2"
    assert feed.wait_s == 0.0
    assert (feed.stats().capacity, feed.stats().reads, feed.stats().inserted) == (1, 0, 0)


def test_marks_stand_at_their_batches_and_behind_an_evaluation_in_one_piece() -> None:
    marked = picture(make_feed(tiny_source(), epochs=2, checkpoint_steps=2))
    assert marked == "T0 T1 C2 T2 E0 M1 C3 T3 C4 T4 T5 E0 M2 END6"


def test_a_stream_that_goes_on_has_the_same_batches_and_no_mark_at_its_beginning() -> None:
    whole = messages(make_feed(tiny_source(), epochs=3))
    for first in range(1, 9):
        rest = messages(make_feed(tiny_source(), epochs=3, start=Start(first, first // 3), checkpoint_steps=2))
        kept = [one for one in rest if one.kind != Kind.CHECKPOINT]
        assert rest[0].kind != Kind.CHECKPOINT
        for left, right in zip(kept, whole[-len(kept) :], strict=True):
            assert (left.kind, left.batch_id) == (right.kind, right.batch_id)
            assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in right.tensors)
        assert kept[0].batch_id == first


@pytest.mark.parametrize("spread", [False, True])
def test_an_evaluation_that_was_lost_is_made_again(spread: bool) -> None:
    again = picture(make_feed(tiny_source(), epochs=2, spread=spread, start=Start(4, 0))).split()
    assert [one for one in again if one.startswith("T")] == ["T4", "T5"]
    assert [one for one in again if not one.startswith("T")] == ["E0", "M1", "E0", "M2", "END6"]
    assert "M1" not in picture(make_feed(tiny_source(), epochs=2, spread=spread, start=Start(4, 1)))


def test_a_stream_that_must_stop_ends_with_a_mark_and_without_an_evaluation() -> None:
    answers = iter([False, False, True])
    assert picture(make_feed(tiny_source(), epochs=3, must_stop=lambda: next(answers))) == "T0 T1 C2 END2"


def test_a_stream_that_must_stop_where_it_begins_leaves_that_checkpoint_as_it_is() -> None:
    assert picture(make_feed(tiny_source(), epochs=3, must_stop=lambda: True, start=Start(2, 0))) == "END2"
    assert picture(make_feed(tiny_source(), epochs=3, must_stop=lambda: True)) == "C0 END0"


class DiesAtTheMark(AtOnce):
    """A process dies when it is given a mark, is back at once, and has not saved it."""

    stays = True

    def __init__(self) -> None:
        self.deaths = 0

    def restarts(self) -> int:
        return self.deaths

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        return is_needed()


def test_a_process_that_has_missed_the_mark_of_a_stop_gets_another_one() -> None:
    ending, seen = DiesAtTheMark(), []
    feed = make_feed(tiny_source(), epochs=2, must_stop=lambda: True, ending=ending)
    for delivery in feed:
        seen.append(delivery.message.kind.name)
        ending.deaths = 1
    assert seen == ["CHECKPOINT", "END"] * 2


def test_a_stop_at_the_very_end_changes_nothing_and_one_behind_it_is_no_end() -> None:
    late = make_feed(tiny_source(), epochs=1, must_stop=lambda: True, start=Start(3, 0))
    assert picture(late) == "E0 M1 END3"
    answers = iter([False, False])
    behind = make_feed(tiny_source(), epochs=1, may_stop=lambda: next(answers), must_stop=lambda: True, start=Start(3, 1))
    assert picture(behind) == "T3 C4 END4"


class ComesBackOnce(AtOnce):
    """A process dies after the first end of the stream, and is back before anybody has left."""

    stays = True

    def __init__(self) -> None:
        self.ends = 0

    def restarts(self) -> int:
        return min(self.ends, 1)

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        self.ends += 1
        return is_needed()


def test_a_stream_goes_on_and_ends_again_for_a_process_that_has_missed_its_end() -> None:
    budget = make_feed(Numbers(2, 1), epochs=1, ending=ComesBackOnce())
    assert picture(budget) == "T0 T1 E0 M1 END2 T2 E0 M1 END2"
    stopped = make_feed(Numbers(2, 1), epochs=2, must_stop=lambda: True, ending=ComesBackOnce())
    assert picture(stopped) == "C0 END0 C1 END1"
