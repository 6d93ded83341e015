"""Runs whose links are those of GPUs, between stages on the CPU and with stand-ins for NCCL and for memory of a GPU: the
loop, the buffers, feedback and recovery meet the links that lend their messages."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from greedypipe.launch.on_host import local_run
from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.workers.links.messages import Message
from greedypipe.workers.links.paced_sender import PacedSender
from tests.conformance.stand_ins import stand_in
from tests.multiprocess.harness import Outcome, assert_equal_states, exported
from tests.multiprocess.test_equivalence import assert_equals_reference, reference
from tests.multiprocess.test_failures import ENDLESS, SOON_S, causes
from tests.multiprocess.test_feedback import FOUR
from tests.multiprocess.test_replay import SLOWED
from tests.multiprocess.test_replicas import BARE, assert_close_states

TRANSPORTS = ("nccl", "gloo", "ipc")


def enter(transport: str, rank: int) -> None:
    stand_in(transport)
    waited: list[StageLinks] = []
    wait, send = StageLinks.wait_for_neighbours, PacedSender.send

    def note(links: StageLinks) -> None:
        wait(links)
        waited.append(links)

    def check(sender: PacedSender, message: Message) -> None:
        assert waited, "a message was sent before the neighbours' links were known to be connected"
        send(sender, message)

    StageLinks.wait_for_neighbours = note  # type: ignore[method-assign]
    PacedSender.send = check  # type: ignore[method-assign]


def run(overrides: list[str], processes: int, transport: str, tmp_path: Path, **more: float) -> Outcome:
    folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    entering: Callable[[int], None] = partial(enter, transport)
    outcome = local_run.run_pipeline(overrides, processes, folder, enter=entering, **more)  # type: ignore[arg-type]
    assert not any("instead" in printed or "waits for" in printed for printed in outcome.printed), outcome.printed
    return outcome


@pytest.mark.parametrize("transport", ["nccl", pytest.param("gloo", marks=pytest.mark.slow), "ipc"])
def test_feedback_gives_the_bits_of_the_sequential_reference(transport: str, tmp_path: Path) -> None:
    overrides = [*FOUR, "method.name=features_replay", "feedback.delay=[2,1,0]"]
    outcome = run(overrides, 2, transport, tmp_path)
    assert_equals_reference(outcome, overrides)
    first, last = outcome.summary["stages"]
    assert first["link"]["transport"] == transport and last["slot_bytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "settings",
    [
        ["training.precision=bf16"],
        ["codec.name=vq", "codec.codes=32", "codec.groups=2"],
        ["method.name=man", "method.every=2"],
        ["method.name=late_chain", "feedback.delay=1"],
        ["buffers.capacity=1", "link.slots=1"],
    ],
    ids=lambda settings: settings[0],
)
def test_every_kind_of_message_gives_them(settings: list[str], transport: str, tmp_path: Path) -> None:
    overrides = [*FOUR, *settings]
    assert_equals_reference(run(overrides, 4, transport, tmp_path), overrides)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_encoding_gives_the_bits_that_it_gives_over_other_links(transport: str, tmp_path: Path) -> None:
    overrides = [*FOUR, "link.dtype=int8"]
    ours = run(overrides, 2, transport, tmp_path)
    theirs = local_run.run_pipeline(overrides, 2, tmp_path / "shm")
    assert_equal_states(exported(ours), exported(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("settings", [[], ["method.name=features_replay"], ["link.dtype=bf16"]], ids=str)
@pytest.mark.parametrize("replicas", [(2, 3, 1), (1, 2, 1)])
def test_parts_of_replicas_are_put_together_by_their_reader(
    replicas: tuple[int, ...], settings: list[str], transport: str, tmp_path: Path
) -> None:
    overrides = [*BARE, *settings]
    outcome = run([*overrides, f"placement.replicas={list(replicas)}"], sum(replicas), transport, tmp_path)
    assert set(outcome.exit_codes) == {0}, outcome.printed
    if "link.dtype=bf16" not in settings:
        assert_close_states(exported(outcome), reference(overrides)[0])


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("settings", [[], ["method.name=man"]], ids=len)
def test_with_replay_nobody_waits(settings: list[str], transport: str, tmp_path: Path) -> None:
    outcome = run([*SLOWED, *settings], 3, transport, tmp_path)
    assert outcome.exit_codes == [0, 0, 0], outcome.printed
    before, slow, behind = outcome.summary["stages"]
    assert slow["dropped"] > 0 and behind["reuse_mean"] > 1.2 and before["wait_output_fraction"] < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_process_that_ends_without_a_word_is_named_by_the_others(stage: int, transport: str, tmp_path: Path) -> None:
    fault = ["debug.fault=exit", f"debug.fault_stage={stage}", "debug.fault_step=8"]
    outcome = run([*ENDLESS, *fault], 3, transport, tmp_path, timeout_s=SOON_S)
    (cause,) = causes(outcome)
    assert cause.startswith(f"stage {stage} (block {stage}, process ") and "died without a word" in cause
    assert outcome.exit_codes == [17 if rank == stage else 1 for rank in range(3)]
