"""What a stage is doing: one of a few activities, and the process or stage that it waits for, if any."""

from enum import StrEnum


class Activity(StrEnum):
    """What a stage's main thread is doing. Code that depends on it compares members, never their sentences."""

    STARTING = "starting"
    JOIN_REPLICAS = "join_replicas"
    CONNECT = "connect"
    MEASURE_LAYERS = "measure_layers"
    WAIT_CUT = "wait_cut"
    COMPUTING = "computing"
    WAIT_INPUT = "wait_input"
    WAIT_FEEDBACK = "wait_feedback"
    WAIT_ROOM = "wait_room"
    WAIT_DATA = "wait_data"
    REST = "rest"
    DRAIN = "drain"
    SAVE = "save"
    WAIT_RETURN = "wait_return"
    WAIT_REPORTS = "wait_reports"
    WAIT_END = "wait_end"
    DONE = "done"


OWN_WORK = frozenset({Activity.COMPUTING, Activity.SAVE})
"""What a stage does without waiting for another one: whoever is at it for too long hangs."""

_SENTENCES = {
    Activity.STARTING: "starting",
    Activity.JOIN_REPLICAS: "waiting for the other replicas of its stage to connect",
    Activity.CONNECT: "waiting for {peer} to connect",
    Activity.MEASURE_LAYERS: "measuring layers",
    Activity.WAIT_CUT: "waiting for {peer} to measure layers",
    Activity.COMPUTING: "computing",
    Activity.WAIT_INPUT: "waiting for {peer}",
    Activity.WAIT_FEEDBACK: "waiting for feedback of {peer}",
    Activity.WAIT_ROOM: "waiting for room at {peer}",
    Activity.WAIT_DATA: "waiting for data",
    Activity.REST: "resting while other stages still train",
    Activity.DRAIN: "waiting for {peer} to take the last message",
    Activity.SAVE: "saving",
    Activity.WAIT_RETURN: "waiting for a lost stage to come back",
    Activity.WAIT_REPORTS: "waiting for the other processes' reports",
    Activity.WAIT_END: "waiting for the other processes to end",
    Activity.DONE: "done",
}


def sentence(activity: Activity, peer: str) -> str:
    """The activity as a sentence, for people.

    Args:
        peer: Name of the awaited stage or process; empty if there is none.
    """
    return _SENTENCES[activity].format(peer=peer)
