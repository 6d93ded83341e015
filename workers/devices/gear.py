"""The parts of a stage that depend on its device, chosen once: on the CPU they add nothing."""

from typing import Protocol

import torch

from greedypipe.workers.around.recorder import Recorder, Work
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.devices.clock import DeviceClock, DeviceStopwatch
from greedypipe.workers.devices.copies import ClonedStates, Copies, LandedStates
from greedypipe.workers.devices.deferred_meter import DeferredMeter
from greedypipe.workers.devices.normalised import Normalising, on_device, on_host
from greedypipe.workers.devices.side import CudaSide, Side
from greedypipe.workers.devices.spans import DeviceSpans
from greedypipe.workers.devices.timed import ClockedLine, ClockedSender, UploadedInbox
from greedypipe.workers.devices.uploads import Uploads
from greedypipe.workers.inbox import MessageStream
from greedypipe.workers.lines import Line
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.telemetry.meter import AnyMeter, Meter, Metered, Stopwatch
from greedypipe.workers.telemetry.status import StageStatus


class Gear(Protocol):
    """Makes the parts, or wraps those that are the same everywhere."""

    @property
    def watch(self) -> Stopwatch:
        """Where the stage's time goes."""

    def meter(self, block: Metered, interval_steps: int) -> AnyMeter:
        """What gathers a block's losses."""

    def copies(self) -> Copies:
        """What a saver writes."""

    def normalising(self, config: DataConfig, info: DataInfo) -> Normalising:
        """Where samples are normalised: what loads them is to be told, and `inbox`."""

    def inbox(self, inbox: MessageStream, status: StageStatus, normalising: Normalising) -> MessageStream: ...
    def outbox(self, outbox: Sender) -> Sender: ...
    def line(self, line: Line) -> Line: ...
    def work(self, recorder: Recorder) -> Work:
        """What keeps the spans of work in a trace."""


class CpuGear:
    """Work of the CPU is done when a call returns."""

    def __init__(self) -> None:
        self.watch = Stopwatch()

    def meter(self, block: Metered, interval_steps: int) -> AnyMeter:
        return Meter(block, interval_steps)

    def copies(self) -> Copies:
        return ClonedStates()

    def normalising(self, config: DataConfig, info: DataInfo) -> Normalising:
        return on_host(info)

    def inbox(self, inbox: MessageStream, status: StageStatus, normalising: Normalising) -> MessageStream:
        return inbox

    def outbox(self, outbox: Sender) -> Sender:
        return outbox

    def line(self, line: Line) -> Line:
        return line

    def work(self, recorder: Recorder) -> Work:
        return recorder


class GpuGear:
    """The host starts work that the device does later: nothing here waits for it in a training step. On CUDA not yet run.

    Args:
        device: The stage's.
        side: What copies run on, beside the stage's work.
    """

    def __init__(self, device: torch.device, side: Side, clock: DeviceClock) -> None:
        self._device = device
        self._side = side
        self._clock = clock
        self.watch: Stopwatch = DeviceStopwatch(clock)

    def meter(self, block: Metered, interval_steps: int) -> AnyMeter:
        return DeferredMeter(block, interval_steps, self._side)

    def copies(self) -> Copies:
        return LandedStates(self._side)

    def normalising(self, config: DataConfig, info: DataInfo) -> Normalising:
        return on_device(config, info, self._device, self._side)

    def inbox(self, inbox: MessageStream, status: StageStatus, normalising: Normalising) -> MessageStream:
        return UploadedInbox(inbox, Uploads(self._device, self._side, normalising.arrived), self._clock, status)

    def outbox(self, outbox: Sender) -> Sender:
        return outbox if outbox.is_dead_end else ClockedSender(outbox, self._clock)

    def line(self, line: Line) -> Line:
        return ClockedLine(line, self._clock)

    def work(self, recorder: Recorder) -> Work:
        return DeviceSpans(recorder, self._side, self._clock.make_event)


def gear_of(device: torch.device) -> Gear:
    """The gear of a stage on `device`, which is the current one of the calling thread, its main one."""
    return GpuGear(device, CudaSide(device), DeviceClock()) if device.type == "cuda" else CpuGear()
