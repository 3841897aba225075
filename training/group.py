"""The processes of a Cluster: they come together, compare what they are to do, and end together.

Each worker keeps a connection to the chief, over which both say every few seconds that they are
alive. Who notices that another one is gone, hangs or stops ends its own process at once, with one
line and the exit code of a failure that passes (EX_TEMPFAIL), so that whatever started it starts it
again. Gradients do not come this way; `training/collectives.py` has them. Imports no TensorFlow.

Messages are lines of JSON, bounded in length. Nobody proves who they are: for private networks.
"""

import contextlib
import errno
import json
import os
import queue
import signal
import socket
import threading
import time

from support.errors import TemporaryError, UserError, one_line

TIMEOUT = 300  # seconds for all to come together, and for each to be ready then
SILENCE = 30  # seconds without a word after which a process is taken to hang
_HEARTBEAT = 2
_SECONDS_BETWEEN_LINES = 5
_SECONDS_FOR_A_PORT = 10
_SECONDS_TO_LEAVE = 10
_LONGEST_MESSAGE = 2**16
_BETWEEN_TRIES = 0.1  # seconds
# What reading from another process raises where that is gone, or is no process of this project.
_NOBODY = (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, RecursionError)


def group_of(cluster, facts, **options):
    """-> the Group of a Cluster, or Alone where that has one process. options: those of Group."""
    return Group(cluster, facts, **options) if cluster.size > 1 else Alone()


class Alone:
    """The group of a process that trains by itself."""

    def formed(self, finished=None):
        return contextlib.nullcontext(self)

    def begin(self, **plan):
        return plan

    def should_stop(self, received):
        return bool(received)

    def leave(self, why):
        pass

    def finish(self, weights):
        pass


ALONE = Alone()


class Group:
    """All processes of a Cluster, within `formed`."""

    def __init__(self, cluster, facts, *, timeout=TIMEOUT, log=print):
        """facts: {name: text} of what has to be the same everywhere; timeout: seconds to form.

        log: takes lines for the user.
        """
        self.cluster = cluster
        self.stopped_by = None  # which worker has got which signal, once one has
        self._signal = None  # the one that this worker has got
        self._facts = facts
        self.timeout = timeout
        self._log = log
        self._links = {}  # index: _Link
        self._formed = self._over = False
        self._ending = threading.Lock()

    @contextlib.contextmanager
    def formed(self, finished=lambda: False):
        """Within it all are there; what ends the body, ends it for all of them.

        finished: () -> whether the chief's run is. Then it waits a moment only for the others, who
        may have ended already. Yields the group that there is: this one, or ALONE.
        TemporaryError where they do not come together in time, UserError where this one does not
        belong to them.
        """
        threading.Thread(target=self._beat, daemon=True).start()
        there = self._come_together(finished())
        try:
            yield there
        except BaseException as error:
            self._leave(error)
            raise
        self._leave()

    def begin(self, **plan):
        """The chief's plan, given to all once each is ready; -> the plan."""
        if self.cluster.is_chief:
            self._await("ready", self.timeout)
            self._tell(begin=plan)
            return plan
        self._tell(ready=True)
        return self._await("begin")

    def finish(self, weights):
        """Waits until the chief has written all there is to write, and all know it.

        weights: a checksum of this process's; UserError where they are not the chief's.
        """
        if self.cluster.is_chief:
            self._over = True
            self._tell(finished=weights)
            self._await("goodbye", _SECONDS_TO_LEAVE)
            return
        theirs = self._await("finished")
        self._over = True
        self._tell(goodbye=True)
        if theirs != weights:
            raise UserError(f"the weights here ({weights}) are not the chief's ({theirs})")

    def should_stop(self, received):
        """The signals that this process got -> whether it stops now.

        The chief does, for itself or for a worker. A worker asks the chief to, and goes on until
        the chief has saved what they have learnt together.
        """
        if self.cluster.is_chief:
            return bool(received or self.stopped_by)
        if received and not self._signal:
            self._signal = received[0]
            self._tell(stop=signal.Signals(received[0]).name)
        return False

    def leave(self, why):
        """Tells the others that this process leaves them, and why."""
        with self._ending:
            self._tell(leave=f"{self.cluster.name(self.cluster.index)} {why}")
            self._over = True

    def wait_for_the_end(self, seconds=_SECONDS_TO_LEAVE):
        """Gives the watchers time to say why a computation failed, and to end the process."""
        time.sleep(seconds)

    # Coming together.

    def _come_together(self, finished):
        """-> this group once all are there, or ALONE where that is not needed."""
        try:
            with _listening(self.cluster) as listener:
                if self.cluster.is_chief:
                    self._gather(listener, _SECONDS_TO_LEAVE if finished else self.timeout)
                else:
                    self._join()
        except TemporaryError:
            if not finished:
                raise
            return ALONE
        return self

    def _gather(self, listener, seconds):
        """Of the chief: takes workers until all are there."""
        waiting = _Waiting(seconds, self._log)
        while missing := self._missing():
            if waiting.goes_on(missing, "did not come"):
                self._tell(missing=missing)
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                threading.Thread(target=self._meet, args=[connection], daemon=True).start()
        self._tell(welcome=True)

    def _meet(self, connection):
        """Takes one connection in, or tells the worker why not."""
        link = _Link(connection)
        with contextlib.suppress(*_NOBODY):
            hello = link.receive(_SECONDS_TO_LEAVE)["hello"]
            index, facts = hello["index"], hello["facts"]
            refusal = self._refusal(index, facts)
            if refusal:
                self._log(f"Refused: {refusal}.")
                link.send(refused=refusal)
                link.close()
                return
            self._links[index] = link
            self._watch(index, link)

    def _refusal(self, index, facts):
        """-> why a worker cannot be taken in, or None."""
        if index not in range(1, self.cluster.size):
            return f"the chief knows no worker {index}"
        if index in self._links:
            return f"there is a worker {index} already: wanted an index of its own for each"
        names = sorted(self._facts.keys() | facts.keys())
        here = f"on worker {index}"
        return ", ".join(
            f"{name} is {facts.get(name)} {here} and {self._facts.get(name)} on the chief"
            for name in names
            if facts.get(name) != self._facts.get(name)
        )

    def _join(self):
        """Of a worker: comes to the chief, again and again until it takes this one in."""
        waiting = _Waiting(self.timeout, self._log)
        while True:
            try:
                return self._ask_chief()
            except _NOBODY as error:
                if isinstance(error, UserError):
                    raise
                why = f" ({_reason(error)})"
            waiting.goes_on(self.cluster.name(0), "did not answer", why)
            time.sleep(_BETWEEN_TRIES)

    def _ask_chief(self):
        """Waits with the chief until all are there; UserError where it refuses this one."""
        link = self._links[0] = _Link(_connected(self.cluster.addresses[0]))
        link.send(hello={"index": self.cluster.index, "facts": self._facts})
        while "welcome" not in (answer := link.receive(SILENCE)):
            if "refused" in answer:
                who = self.cluster.name(self.cluster.index)
                raise UserError(f"{who} does not belong to this group: {answer['refused']}")
            if "missing" in answer:
                self._log(f"Waiting for {one_line(answer['missing'])}.")
        self._formed = True
        self._watch(0, link)

    def _missing(self):
        """-> the names of those that are not there, empty once all are, which cannot leave then."""
        with self._ending:
            there = self._links
            names = [self.cluster.name(i) for i in range(1, self.cluster.size) if i not in there]
            self._formed = not names
        return ", ".join(names)

    # While they train.

    def _tell(self, **message):
        for link in list(self._links.values()):
            link.send(**message)

    def _await(self, word, seconds=None):
        """-> what belongs to a word that all the others say within so many seconds."""
        for index, link in sorted(self._links.items()):
            try:
                said = link.awaited(word, seconds)
            except queue.Empty:
                raise TemporaryError(
                    f"{self.cluster.name(index)} did not get as far within {seconds:g} s; run the "
                    "same command on all"
                ) from None
        return said

    def _beat(self):
        while not self._over:
            time.sleep(_HEARTBEAT)
            self._tell(alive=True)

    def _watch(self, index, link):
        threading.Thread(target=self._listen, args=[index, link], daemon=True).start()

    def _listen(self, index, link):
        """Takes in what another process says, until it is gone."""
        who = self.cluster.name(index)
        try:
            while True:
                message = link.receive(SILENCE)
                if "leave" in message:
                    self._end(str(message["leave"]), message.get("code"))
                if "stop" in message:
                    self.stopped_by = f"{who} was stopped by {message['stop']}"
                link.keep(message)
        except TimeoutError:
            self._lost(index, f"{who} has not said a word for {SILENCE} s")
        except _NOBODY:
            self._lost(index, f"{who} is gone")

    def _lost(self, index, reason):
        """Another process is no more: before all are there it may come again."""
        with self._ending:
            if not self._formed:
                self._links.pop(index, None)
                return
        self._end(f"{reason}; run the same command on all, and it goes on from the last checkpoint")

    def _end(self, reason, code=None):
        """Ends this process at once, wherever it is; the others hear why."""
        with self._ending:
            if self._over or not self._formed:
                return
            self._tell(leave=reason)
            line = f"main.py: {one_line(reason)}\n"
            with contextlib.suppress(OSError):
                os.write(2, ("\n" * os.isatty(2) + line).encode(errors="backslashreplace"))
            os._exit(self._exit_code(code))

    def _exit_code(self, said):
        """said: what the one that ended first wants the others' to be, or None."""
        if self._signal:
            return 128 + self._signal
        return said if said in range(1, 256) else TemporaryError.exit_code

    def _leave(self, error=None):
        """Ends the connections; the others hear why, if it is before the end."""
        with self._ending:
            if error is not None and not self._over:
                code = error.exit_code if isinstance(error, UserError) else None
                self._tell(leave=self._last_words(error), code=code)
            self._over = True
            for link in list(self._links.values()):
                link.close()

    def _last_words(self, error):
        who = self.cluster.name(self.cluster.index)
        if isinstance(error, UserError):
            return f"{who}: {error}"
        return f"{who} ended with {type(error).__name__}"


class _Link:
    """A connection to another process, for messages: dictionaries of a word and its content."""

    def __init__(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._rest = b""
        self._sending = threading.Lock()
        self._kept = queue.Queue()

    def send(self, **message):
        """What cannot be sent, the one who listens finds out."""
        with contextlib.suppress(OSError), self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds):
        """-> the next message; EOFError at the end, TimeoutError, ValueError for something else."""
        self._connection.settimeout(seconds)
        while b"\n" not in self._rest:
            more = self._connection.recv(2**12)
            if not more:
                raise EOFError("it hung up")
            self._rest += more
            if len(self._rest) > _LONGEST_MESSAGE:
                raise ValueError("it says something else")
        line, _, self._rest = self._rest.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("it says something else")
        return message

    def keep(self, message):
        """Keeps a message of the other one's for `awaited`."""
        if "alive" not in message:
            self._kept.put(message)

    def awaited(self, word, seconds):
        """-> what belongs to the next message of that word; queue.Empty after so many seconds."""
        while True:
            message = self._kept.get(timeout=seconds)
            if word in message:
                return message[word]

    def close(self):
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class _Waiting:
    """Waits for others, with a line every few seconds and not for ever."""

    def __init__(self, seconds, log):
        self._seconds = seconds
        self._log = log
        self._began = self._last = time.monotonic()

    def goes_on(self, whom, fault, why=""):
        """-> whether it was time for a line; TemporaryError once they had all the time."""
        now = time.monotonic()
        if now - self._began > self._seconds:
            raise TemporaryError(
                f"no group after {self._seconds:g} s, for {whom} {fault}{why}; start it and run "
                "the same command"
            )
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return False
        self._last = now
        self._log(f"Waiting for {whom}{why}.")
        return True


@contextlib.contextmanager
def _listening(cluster):
    """-> a socket that listens on this process's own address, and on no other."""
    deadline = time.monotonic() + _SECONDS_FOR_A_PORT
    while True:
        try:
            listener = _bound(cluster.addresses[cluster.index])
            break
        except OSError as error:
            # One that was killed a moment ago may still have it.
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _no_listener(cluster, error) from error
        time.sleep(_BETWEEN_TRIES)
    with listener:
        yield listener


def _bound(address):
    host, port = _parts(address)
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    listener.settimeout(1)
    return listener


def _no_listener(cluster, error):
    who = cluster.name(cluster.index)
    return UserError(
        f"{who} cannot listen there ({_reason(error)}): wanted a free port, and an address of this "
        "machine, under the index in TF_CONFIG"
    )


def _connected(address):
    return socket.create_connection(_parts(address), timeout=_HEARTBEAT)


def _parts(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


def _reason(error):
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__
