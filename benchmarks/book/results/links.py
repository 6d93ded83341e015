"""Links, and what a slow line between two hosts does (benchmarks.links, benchmarks.hosts)."""

import statistics

from benchmarks.book.markdown import at_least, setup, spread, spread_of, table
from benchmarks.book.result import Answer, Result

SLOW, SLOW_BITS_PER_S = "100 Mbit/s", 100e6
TARGET, TARGET_SIZES = 3, ("1 MiB", "2 MiB", "4 MiB", "8 MiB")
LINK_WORDS = {
    "FIFO": "FIFO",
    "FIFO, bf16 link": "FIFO, `link.dtype=bf16`",
    "FIFO, int8 link": "FIFO, `link.dtype=int8`",
    "replay": "replay",
    "replay, int8 link": "replay, `link.dtype=int8`",
}


def _links(answer: Answer) -> str:
    found = {(row["transport"], row["size"]): row for row in answer["rows"] if row["encoding"] == "same"}
    rows = []
    for size, ratio in answer["shm_over_gloo"]["gb_per_s"].items():
        shm, gloo = found["shm", size], found["gloo", size]
        target = at_least(ratio["median"], TARGET) if size in TARGET_SIZES else ""
        one_way = f"{shm['latency_us']['median']:,.0f}, {gloo['latency_us']['median']:,.0f}"
        rates = [spread(row["gb_per_s"], ".2f") for row in (shm, gloo)]
        rows.append((size, *rates, spread(ratio, ".1f"), target, one_way))
    header = ("payload", "shm GB/s", "gloo GB/s", "shm / gloo", "target", "one way: shm, gloo &micro;s")
    return f"""
Two processes of one host. Throughput is that of a sender that never rests; one way is the time of a single message.

{table(header, rows)}
"""


def _hosts(answer: Answer) -> str:
    lines = answer["samples_per_s"]
    rows = []
    for name in next(iter(lines.values()))[0]:
        cells = [", ".join(spread_of(stage) for stage in _by_stage(answer, line, name)) for line in lines]
        rows.append((LINK_WORDS.get(name, name), *cells, f"{_over_fifo(answer, name):.2f}"))
    message_s = answer["message_bytes"] * 8 / SLOW_BITS_PER_S
    header = ("trained by", *(f"{line}: stage 0, stage 1" for line in lines), f"slower stage / FIFO's, {SLOW}")
    return f"""
Two network namespaces of one machine are the hosts; a token bucket limits the line in both directions and adds no delay.
{setup(answer["settings"])}, 2 blocks, {answer["message_bytes"] / 1e6:.1f} MB per message.
Samples/s of each stage; 1F1B has one rate.

{table(header, rows)}

At {SLOW} a message in fp32 takes {message_s:.2f} s, and the line slows down its sender. With replay buffers the stage
behind the line continues with the batches that it has. 1F1B sends as many bytes back as forward, and waits for them.
"""


def _by_stage(answer: Answer, line: str, name: str) -> list[tuple[float, ...]]:
    return list(zip(*(repeat[name] for repeat in answer["samples_per_s"][line]), strict=True))


def _over_fifo(answer: Answer, name: str) -> float:
    return statistics.median(min(one[name]) / min(one["FIFO"]) for one in answer["samples_per_s"][SLOW])


def _hosts_headline(answer: Answer) -> tuple[str, str]:
    slow = answer["samples_per_s"][SLOW]
    rate = {name: statistics.median(min(one[name]) for one in slow) for name in slow[0]}
    found = f"FIFO {rate['FIFO']:,.0f} samples/s, with int8 links {rate['FIFO, int8 link']:,.0f}; 1F1B "
    return f"{SLOW} between two hosts", f"{found}{rate['1F1B, 4 micro-batches']:,.0f} (n = {len(slow)}, medians)"


LINKS = Result(
    "links",
    "Links",
    lambda answer: f"n = {answer['rows'][0]['repeats']} interleaved repeats; medians and ranges",
    _links,
)
HOSTS = Result(
    "hosts",
    "A slow line between two hosts",
    lambda answer: f"n = {len(answer['samples_per_s']['unbounded'])} interleaved repeats; medians and ranges",
    _hosts,
    headline=_hosts_headline,
)
