"""All topics on the board, through which the processes of a run communicate, with the types of their entries.

| topic         | written by                       | read by                                             |
|---------------|----------------------------------|-----------------------------------------------------|
| STATUS        | every supervisor, 4 times a second | supervisors, the monitor, stage 0's feed           |
| STOP          | a process that receives a signal | supervisors                                         |
| KEEPER        | every keeper                     | supervisors                                         |
| CAUSE         | the first process that finds one | supervisors, the Ray driver                         |
| FOLDER        | rank 0                           | every process when it joins                         |
| ORIGIN        | rank 0                           | every process when it begins                        |
| origin_of     | rank 0                           | every process when an attempt begins                |
| ready_for     | every process                    | every process when an attempt begins                |
| done_with     | rank 0                           | every process that leaves                           |
| GPU           | every process on a GPU           | rank 0                                              |
| INCARNATION   | every process                    | both ends of every link                             |
| report_of     | every process                    | rank 0                                              |
| evaluation_of | every process                    | the monitor, the committer                          |
| checkpoint_of | every saver                      | the committer                                       |
| TRACE         | every process                    | rank 0                                              |
| CUT           | rank 0                           | every process                                       |
| RUN           | the first process that comes     | every supervisor                                    |
| PASSED        | every process                    | the monitor                                         |
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic_core import to_json

from greedypipe.workers.telemetry.records import (
    Beginning,
    Cause,
    EvaluationPart,
    Gpu,
    KeeperRow,
    Number,
    Passed,
    Saved,
    Spans,
    StageRow,
)
from greedypipe.workers.telemetry.results import Prediction, StageReport
from greedypipe.workers.validator import Validator

T = TypeVar("T")


@dataclass(frozen=True)
class Topic(Generic[T]):
    """A name on the board, and the type of its entries."""

    name: str
    entries: Validator[T]

    def write(self, value: T) -> str:
        """The value as JSON; NaN and infinities are kept, as `read` accepts them."""
        return to_json(value, inf_nan_mode="constants").decode()

    def read(self, text: bytes) -> T:
        """The value that `write` turned into `text`.

        Raises:
            ValueError: The text is of another type.
        """
        return self.entries.validate_json(text)


_FLAG: Validator[bool] = Validator(bool)
_TEXT: Validator[str] = Validator(str)
_NUMBER: Validator[int] = Validator(Number)
_REPORT: Validator[StageReport] = Validator(StageReport)
_EVALUATION: Validator[EvaluationPart] = Validator(EvaluationPart)
_SAVED: Validator[Saved] = Validator(Saved)
_BEGINNING: Validator[Beginning] = Validator(Beginning)

STATUS: Topic[StageRow] = Topic("status", Validator(StageRow))
STOP: Topic[bool] = Topic("stop", _FLAG)
KEEPER: Topic[KeeperRow] = Topic("keeper", Validator(KeeperRow))
CAUSE: Topic[Cause] = Topic("cause", Validator(Cause))
FOLDER: Topic[str] = Topic("folder", _TEXT)
ORIGIN: Topic[Beginning] = Topic("origin", _BEGINNING)
GPU: Topic[Gpu] = Topic("gpu", Validator(Gpu))
INCARNATION: Topic[int] = Topic("incarnation", _NUMBER)
TRACE: Topic[Spans] = Topic("trace", Validator(Spans))
CUT: Topic[Prediction] = Topic("cut", Validator(Prediction))
RUN: Topic[str] = Topic("run", _TEXT)
PASSED: Topic[Passed] = Topic("passed", Validator(Passed))


def origin_of(attempt: int) -> Topic[Beginning]:
    """Where an attempt begins."""
    return Topic(f"origin/{attempt}", _BEGINNING)


def ready_for(attempt: int) -> Topic[bool]:
    """Whether a process is ready for an attempt."""
    return Topic(f"ready/{attempt}", _FLAG)


def done_with(attempt: int) -> Topic[bool]:
    """Whether rank 0 is done with the other processes."""
    return Topic(f"done/{attempt}", _FLAG)


def report_of(attempt: int) -> Topic[StageReport]:
    """The report of every process that has reached the end of an attempt."""
    return Topic(f"report/{attempt}", _REPORT)


def evaluation_of(epoch: int) -> Topic[EvaluationPart]:
    """The counts of every process in the pass after an epoch."""
    return Topic(f"evaluation/{epoch}", _EVALUATION)


def checkpoint_of(name: str, attempt: int = 0) -> Topic[Saved]:
    """Every process's part of a checkpoint, saved in an attempt."""
    return Topic(f"checkpoint/{attempt}/{name}", _SAVED)
