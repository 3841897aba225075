"""Web servers on this machine, good ones and bad ones, for tests of downloads."""

import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

_STOP = threading.Event()


@contextmanager
def serving(handler, host="127.0.0.1"):
    """Yields the address of a server whose requests the handler answers."""
    server = ThreadingHTTPServer((host, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    _STOP.clear()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        _STOP.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder."""

    def log_message(self, *args):
        pass


class Short(BaseHTTPRequestHandler):
    """Promises 5,000 bytes, sends 400, hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(bytes(400))

    def log_message(self, *args):
        pass


class Endless(Short):
    """States no length and sends 64 MB, or until nobody listens."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.pour()

    def pour(self):
        with suppress(OSError):
            for _ in range(2**10):
                self.wfile.write(bytes(2**16))


class Drip(Short):
    """Sends a byte now and then: of the body, or of a header before it."""

    beginning = b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n"

    def do_GET(self):
        with suppress(OSError):
            self.wfile.write(self.beginning)
            while not _STOP.wait(0.05):
                self.wfile.write(b"x")


class DripHeader(Drip):
    """Never comes to the end of its headers."""

    beginning = b"HTTP/1.0 200 OK\r\nX: "


class Redirect(Short):
    """Sends everybody on to `target`."""

    target = "http://192.0.2.1/elsewhere.gz"

    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: " + self.target.encode() + b"\r\n\r\n")


class PouringRedirect(Endless):
    """A redirect to itself, with a body that has no end."""

    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n")
        self.pour()


class Babble(Short):
    """Does not speak HTTP."""

    def do_GET(self):
        self.wfile.write(b"SSH-2.0\r\n")


class Commanding(Short):
    """Its words command a terminal, and there are many."""

    def do_GET(self):
        self.wfile.write(b"HTTP/1.0 404 \x1b[2J\x1b]0;owned\x07" + 30_000 * b"Z" + b"\r\n\r\n")
