"""A loader process: makes the batches that it is asked for.

It is first sent what makes a batch of a batch_id, and then batch_ids. It answers each with the batch, or with what went
wrong.
"""

import contextlib
import pickle
import traceback
from multiprocessing.connection import Connection

import torch

from greedypipe.workers.data.passing import Parcel, receive
from greedypipe.workers.lifeline import deaf, end_with_parent


def make_batches(connection: Connection) -> None:
    """What a loader process does until whoever asks it hangs up."""
    end_with_parent()
    torch.set_num_threads(1)
    # Deaf from its first moment, unless the fork server is one that the caller had started already.
    with deaf(), contextlib.suppress(EOFError, ConnectionError):
        make = receive(connection)
        while True:
            batch_id = connection.recv()
            try:
                answer = Parcel.of(make(batch_id))
            except Exception as error:
                answer = Parcel.of(_sendable(error))
            answer.send(connection)
            answer.close()


def _sendable(error: Exception) -> Exception:
    """The error with this process's traceback as a note; as a RuntimeError where it cannot be pickled."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note("in a loader process:\n" + "".join(traceback.format_exception(error)))
    return copy
