"""Colours of a report: one per block, in the order of depth, and one per activity, the same in every figure."""

DEPTH = ("#31508f", "#1d879b", "#4ca35d", "#d59f1c", "#cb5a35", "#87386f")
"""From the first block to the last; blocks in between get mixtures of two neighbours."""

ACTIVITIES = {
    "data": "#8e9aab",
    "forward": "#2f5fa3",
    "learn": "#7ba4dd",
    "hand_on": "#a9bfdc",
    "send": "#2b9d80",
    "evaluate": "#a98fce",
    "wait_input": "#f3cf72",
    "wait_room": "#ea9a78",
}
WORDS = {
    "data": "making the batch",
    "forward": "forward",
    "learn": "learn (head, loss, backward, step)",
    "hand_on": "hand on",
    "send": "send (encode and copy)",
    "evaluate": "evaluate",
    "wait_input": "wait for input",
    "wait_room": "wait for room",
}
BUSY = "#4577bd"
TOGETHER = "#30343b"
"""All heads together."""


def depth_colour(index: int, count: int) -> str:
    """Colour of block `index` of `count`."""
    position = index / max(count - 1, 1) * (len(DEPTH) - 1)
    below = min(int(position), len(DEPTH) - 2)
    low, high = (_channels(DEPTH[below + offset]) for offset in (0, 1))
    mixed = (round(one + (two - one) * (position - below)) for one, two in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
