"""Downloads into memory, so that one that fails leaves nothing."""

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from support.errors import DataError, one_line

MAX_BYTES = 2**28
_LONGEST_REASON = 200
_SECONDS_TO_ANSWER = 30
_LOCAL = ("localhost", "127.0.0.1", "::1")


def download(urls: Iterable[str], check: Callable[[bytes, str], None], *, protected: bool) -> bytes:
    """Downloads a file from the first address that has a valid one.

    Args:
      urls: Addresses to try in turn.
      check: Function of the content and its address that raises a DataError if it is not valid.
      protected: Whether plain http from another machine is rejected, where files can be changed
        on the way.

    Raises:
      DataError: If no address has a valid file, with each one's reason.
    """
    import requests  # only downloads need these
    from tqdm import tqdm

    def check_address(url):
        if not (is_protected(url) or (url.startswith("http://") and not protected)):
            raise DataError(f"{_shorten(url)}: expected an https address")

    reasons = []
    for url in urls:
        content = bytearray()
        try:
            check_address(url)
            with (
                requests.get(
                    url,
                    stream=True,
                    timeout=_SECONDS_TO_ANSWER,
                    headers={"Accept-Encoding": "identity"},
                    # Called after each redirect.
                    hooks={"response": lambda response, **_: check_address(response.url)},
                ) as response,
                # Shown only in a terminal.
                tqdm(desc=url.split("/")[-1], unit="B", unit_scale=True, disable=None) as bar,
            ):
                response.raise_for_status()
                bar.total = int(response.headers.get("Content-Length", 0)) or None
                for chunk in response.iter_content(2**16):
                    content += chunk
                    bar.update(len(chunk))
                    if len(content) > MAX_BYTES:
                        raise DataError(f"{url}: expected at most {MAX_BYTES} bytes, found more")
            check(bytes(content), url)
            return bytes(content)
        except DataError as error:
            reasons.append(str(error))
        except (requests.RequestException, ValueError) as error:  # ValueError: an invalid redirect
            inner: object = error
            while isinstance(inner, Exception) and isinstance(
                cause := inner.__cause__ or (inner.args and inner.args[0]), Exception
            ):
                inner = cause  # the messages of the outer ones are long
            reasons.append(f"{_shorten(url)}: {type(inner).__name__} {_shorten(inner)}")
    raise DataError("; ".join(reasons))


def is_protected(url: str) -> bool:
    """Returns whether no file from an address can be changed on the way."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)


def _shorten(text):
    line = one_line(text)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
