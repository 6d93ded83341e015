"""The studies as one page of curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_studies(studies: Mapping[str, Any], path: Path) -> None:
    """Five panels; every curve is a prediction."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    _scale(panels[0, 0], studies["scale"])
    efficiency = {
        name: [value / count for value, count in zip(curve, studies["scale"]["stages"], strict=True)]
        for name, curve in studies["scale"]["speed_up"].items()
    }
    _curves(panels[0, 1], studies["scale"]["stages"], efficiency, "stages", "speed-up / stages", log_x=True)
    panels[0, 1].set_title("the same per stage")
    links, straggler, jitter = (studies[name] for name in ("links", "straggler", "jitter"))
    _curves(
        panels[0, 2],
        links["bandwidth_share"],
        links["throughput_share"],
        "bandwidth / (fp32 activation per stage's time)",
        "throughput / with fast links",
        log_x=True,
    )
    panels[0, 2].set_title("slow links, 8 stages")
    _curves(panels[1, 0], straggler["slowed"], straggler["throughput_share"], "S", "throughput / unslowed")
    panels[1, 0].set_title("one of 8 stages slowed S times")
    replicas = studies["replicas"]
    _curves(
        panels[1, 1],
        replicas["replicas"],
        replicas["throughput_share"],
        "replicas of the slow stage",
        "throughput / even pipeline",
    )
    panels[1, 1].set_title("one of 4 stages 4 times slower, replicated")
    _curves(
        panels[1, 2],
        jitter["capacity"],
        jitter["throughput_share"],
        "capacity of every buffer, batches",
        "throughput / 1 stage alone",
        log_x=True,
    )
    panels[1, 2].set_title("jitter against capacity, 8 stages, FIFO")
    figure.suptitle("simulated: predictions, not measurements")
    figure.savefig(path, dpi=110)


def _scale(axes: Any, study: Mapping[str, Any]) -> None:
    axes.plot(study["stages"], study["stages"], "k:", label="ideal")
    _curves(axes, study["stages"], study["speed_up"], "stages", "speed-up over back-propagation", log_x=True)
    axes.set_yscale("log", base=2)
    axes.set_ylim(bottom=1)
    axes.set_title("speed-up; schedules with a flush: m = min(4 p, 128)")


def _curves(
    axes: Any, x: list[float], curves: Mapping[str, list[float]], x_label: str, y_label: str, log_x: bool = False
) -> None:
    for colour, (name, values) in enumerate(curves.items()):
        axes.plot(x, values, f"C{colour}o-", markersize=4, label=name)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
