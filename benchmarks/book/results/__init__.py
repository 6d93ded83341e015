"""Every measurement that docs/results.md shows, in its order. A new one is a `Result` in a file here and a line below."""

from benchmarks.book.result import Result
from benchmarks.book.results import (
    accuracy,
    editions,
    endurance,
    faults,
    feedback,
    first_run,
    links,
    methods,
    predictions,
    reuse,
    stages,
    staleness,
    throughput,
)

RESULTS: tuple[Result, ...] = (
    accuracy.CIFAR10,
    methods.DIGITS,
    accuracy.LINK_DTYPE,
    throughput.THROUGHPUT,
    editions.AGAINST,
    feedback.FEEDBACK,
    faults.CAMPAIGN,
    faults.FAILURES,
    faults.CHECKPOINTS,
    endurance.ENDURANCE,
    links.HOSTS,
    links.LINKS,
    stages.SLOWDOWN,
    reuse.REUSE,
    staleness.STALENESS,
    stages.MEMORY,
    stages.REPLICAS,
    predictions.PLANNER,
    predictions.VALIDATION,
    predictions.PLAN,
    predictions.RAY,
    first_run.FIRST_RUN,
)
