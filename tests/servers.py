"""Web servers on this machine, good ones and bad ones, for tests of downloads."""

import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler):
    """Context manager that yields the address of a server of a folder."""
    if not isinstance(handler, type):
        handler = partial(Files, directory=str(handler))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Files(SimpleHTTPRequestHandler):
    """Files of a folder."""

    def log_message(self, *args):
        pass


class Short(BaseHTTPRequestHandler):
    """Promises 5,000 bytes, sends 400 and closes the connection."""

    answer = b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(400)

    def do_GET(self):
        with suppress(OSError):
            self.wfile.write(self.answer)

    def log_message(self, *args):
        pass


class Endless(Short):
    """States no length and sends 64 MB, or until the client closes the connection."""

    answer = b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2**26)
