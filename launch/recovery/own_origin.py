"""Where a process begins that has been restarted alone while all others continue."""

from pathlib import Path

from greedypipe.launch.checkpoints.data_identity import check_same_data
from greedypipe.launch.checkpoints.manifest import Manifest, checkpoints_of, newest_valid
from greedypipe.launch.checkpoints.resume import Origin, beginning_of, say
from greedypipe.launch.checkpoints.trim_records import keep_own_metrics
from greedypipe.launch.recovery.member import Member
from greedypipe.workers.block_files import FINAL, stands
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.topics import checkpoint_of


def own_origin(member: Member) -> Origin:
    """At its own end if it has saved that, or else at the newest complete checkpoint of its run.

    From its own end it has nothing to train again, and its part of the run's final checkpoint stays as it is.

    Raises:
        ConfigError: The data are not those that the run has been trained on.
    """
    end = _own_end(member)
    found = end or newest_valid(member.folder, say) or beginning_of(member.folder, say)
    if found:
        check_same_data(found[1].data, member.plan.data, say)
    blocks = member.plan.placement.blocks_of(member.seat.stage)
    evaluated = keep_own_metrics(member.folder / "metrics", found and found[1], member.seat, blocks)
    where = f"batch {found[1].batch_id} of {found[0]}" if found else "its beginning"
    say(f"{member.seat.name} is back and goes on at {where}")
    checkpoint, manifest = found or (None, None)
    return Origin(member.folder, checkpoint, manifest, evaluated, is_own_end=end is not None)


def _own_end(member: Member) -> tuple[Path, Manifest] | None:
    saved = member.board.read(checkpoint_of(FINAL))[member.rank]
    folder = checkpoints_of(member.folder) / FINAL
    if saved is None or not saved.files or not stands(folder, saved):
        return None
    config = member.plan.config.model_dump(mode="json")
    steps, data = member.plan.blueprint.total_steps, member.plan.data
    return folder, Manifest(steps, saved.steps, saved.files, None, config, versions(), data)
