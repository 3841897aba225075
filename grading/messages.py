"""What the two processes say to each other: JSON, one message a line; arrays as base64."""

import base64
import json
import select
import socket
import time

import numpy as np

LONGEST = 2**24  # bytes of a message
STACK = "stack.txt"  # where a worker writes what it is doing shortly before its time is over


class Broken(Exception):
    """The other side is gone, or what it sends is no message."""


class Channel:
    """Messages over a connected socket: JSON values, and arrays of numbers among them."""

    def __init__(self, connection):
        self._socket = connection
        self._waiting = b""

    def send(self, message):
        """Raises Broken if nobody is there, TimeoutError if nobody reads."""
        line = json.dumps(message, default=_encoded).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise
        except OSError as error:
            raise Broken(str(error)) from error

    def receive(self, seconds=None):
        """The next message; TimeoutError after so many seconds, Broken if there will be none."""
        ends = None if seconds is None else time.monotonic() + seconds
        pieces = [self._waiting]
        while b"\n" not in pieces[-1]:
            self._socket.settimeout(ends and max(0.001, ends - time.monotonic()))
            pieces.append(self._piece())
            if sum(map(len, pieces)) > LONGEST:
                raise Broken("an answer without end")
        line, _, self._waiting = b"".join(pieces).partition(b"\n")
        return _decoded_line(line)

    def hung_up(self):
        """Waits until the other side is gone."""
        poll = select.poll()
        poll.register(self._socket, 0)
        poll.poll()

    def close(self):
        self._socket.close()

    def _piece(self):
        try:
            piece = self._socket.recv(2**20)
        except TimeoutError:
            raise
        except OSError as error:
            raise Broken(str(error)) from error
        if not piece:
            raise Broken("closed")
        return piece


def pair():
    """Two connected sockets."""
    return socket.socketpair()


def printable(text):
    """Text from a student's process, safe to show on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def _encoded(value):
    """What JSON does not know: arrays and NumPy's numbers, else TypeError."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{type(value).__name__}: wanted numbers")
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "data": data}


def _decoded_line(line):
    try:
        return json.loads(line, object_hook=_decoded)
    # Whatever does not fit, a depth without end included, is no message.
    except (ValueError, TypeError, RecursionError) as error:
        raise Broken("an answer that is no message") from error


def _decoded(value):
    if set(value) != {"dtype", "shape", "data"}:
        return value
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in "fiub":
        raise ValueError(f"{dtype}: wanted numbers")
    return np.frombuffer(base64.b64decode(value["data"]), dtype).reshape(value["shape"])
