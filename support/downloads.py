"""A file from a server that nobody vouches for: its size, time, addresses and words are bounded."""

import http.client
import string
import threading
import time
import urllib.request
from contextlib import suppress
from urllib.error import HTTPError
from urllib.parse import quote, urljoin, urlsplit

from support.errors import UserError, one_line
from support.files import FULL
from support.idx import MAX_REASON, reason

MAX_BYTES = 2**28
# Without a single byte.
TIMEOUT_SECONDS = 30
# A transfer may take this long, and a second more for every so many bytes that have come.
GRACE_SECONDS = 60
SLOWEST = 5_000

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LOCAL = ("localhost", "127.0.0.1", "::1")


class DownloadError(UserError):
    """A download that did not come to its end; one line: the address and why."""


def fetch(url, path, max_bytes=MAX_BYTES, verified=False, grace=GRACE_SECONDS):
    """URL -> file of at most `max_bytes`, with a progress bar.

    verified: the caller compares the file with a checksum, so that it may come by plain http.
    grace: seconds that a server has before it must have sent SLOWEST bytes a second.
    DownloadError for what the address or the server does wrong, OSError for the file.
    """
    # Opened here and closed here: a transfer that was given up can neither write nor make a file.
    with open(path, "wb") as file:
        transfer = _Transfer(url, file, max_bytes, verified)
        transfer.start()
        try:
            _watch(transfer, grace)
        finally:
            transfer.abandoned = True
        _raise(transfer)


def is_protected(url):
    """Whether nobody on the way can change what comes: https, or http on this machine."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
    return False


class _Transfer(threading.Thread):
    """Opens and copies on its own: no name server, handshake or header holds up the caller."""

    def __init__(self, url, file, max_bytes, verified):
        super().__init__(daemon=True)
        self.url, self._file, self._max_bytes, self._verified = url, file, max_bytes, verified
        self.received, self.promised = 0, None
        self.error, self.abandoned = None, False

    def run(self):
        try:
            with self._open() as reply:
                self.promised = reply.length
                self._check_size(self.promised or 0)
                self._copy(reply)
        except Exception as error:
            self.error = error

    def _open(self):
        opener, url = urllib.request.build_opener(_NoRedirects), self.url
        for _ in range(1 + _MAX_REDIRECTS):
            self._check_address(url)
            try:
                return opener.open(url, timeout=TIMEOUT_SECONDS)
            except HTTPError as error:
                error.close()
                if error.code not in _REDIRECTS or "location" not in error.headers:
                    raise
                url = _target(url, error.headers["location"])
        raise DownloadError(f"more than {_MAX_REDIRECTS} redirects")

    def _check_address(self, url):
        if is_protected(url) or (self._verified and urlsplit(url).scheme == "http"):
            return
        raise DownloadError(f"address: {one_line(url)[:MAX_REASON]}, wanted https")

    def _copy(self, reply):
        # read1 gives what has come; read would wait until there is as much as was asked for.
        while not self.abandoned and (chunk := reply.read1(2**16)):
            self._file.write(chunk)
            self.received += len(chunk)
            self._check_size(self.received)
        if self.promised not in (None, self.received):
            raise DownloadError(f"bytes: {self.received}, wanted {self.promised}")

    def _check_size(self, size):
        if size > self._max_bytes:
            raise DownloadError(f"bytes: {size}, wanted at most {self._max_bytes}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller: the library would read their bodies without a bound."""

    def redirect_request(self, *_):
        return None


def _target(url, location):
    """An address and what its server redirects to -> the new address, in ASCII."""
    return quote(urljoin(url, location), encoding="iso-8859-1", safe=string.punctuation)


def _watch(transfer, grace):
    """Waits for a transfer and shows how far it is; DownloadError once it is too slow."""
    from tqdm import tqdm  # only a download needs it

    began = time.monotonic()
    name = one_line(transfer.url.rpartition("/")[2])
    with tqdm(desc=name, unit="B", unit_scale=True, disable=None) as bar:
        while transfer.is_alive():
            transfer.join(0.1)
            bar.total = transfer.promised
            bar.update(transfer.received - bar.n)
            seconds = time.monotonic() - began
            if transfer.is_alive() and seconds > grace + transfer.received / SLOWEST:
                raise DownloadError(
                    f"{one_line(transfer.url)}: {transfer.received} bytes in {seconds:.0f} s, "
                    f"wanted {SLOWEST} a second"
                )


def _raise(transfer):
    """Raises what went wrong with a transfer, if anything, with its address."""
    error = transfer.error
    if isinstance(error, OSError) and error.errno in FULL:
        raise error
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        why = str(error) if isinstance(error, DownloadError) else reason(error)
        raise DownloadError(f"{one_line(transfer.url)}: {why}") from error
    if error:
        raise error
