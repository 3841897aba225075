"""Downloads into memory, so that one that fails leaves nothing."""

from collections.abc import Callable, Iterable

from support.errors import DataError, one_line

MAX_BYTES = 2**28
_SECONDS_TO_ANSWER = 30


def download(urls: Iterable[str], check: Callable[[bytes], None]) -> bytes:
    """Downloads a file from the first address that has a valid one.

    Args:
      urls: Addresses to try in turn.
      check: Function of the content that raises a DataError if it is not valid.

    Raises:
      DataError: If no address has a valid file, with each server's reason.
    """
    import requests  # only downloads need these
    from tqdm import tqdm

    reasons = []
    for url in urls:
        content = bytearray()
        try:
            with (
                requests.get(
                    url,
                    stream=True,
                    timeout=_SECONDS_TO_ANSWER,
                    headers={"Accept-Encoding": "identity"},
                ) as response,
                # Shown only in a terminal.
                tqdm(desc=url.split("/")[-1], unit="B", unit_scale=True, disable=None) as bar,
            ):
                if not response.ok:
                    raise DataError(f"{response.status_code} {response.reason}")
                bar.total = int(response.headers.get("Content-Length", 0)) or None
                for chunk in response.iter_content(2**16):
                    content += chunk
                    bar.update(len(chunk))
                    if len(content) > MAX_BYTES:
                        raise DataError(f"expected at most {MAX_BYTES} bytes, found more")
            check(bytes(content))
            return bytes(content)
        except DataError as error:
            reason = str(error)
        except (requests.RequestException, ValueError) as error:  # whose messages are long
            reason = type(error).__name__
        server = url.removeprefix("https://").removeprefix("http://").partition("/")[0]
        reasons.append(one_line(f"{server}: {reason}"))
    raise DataError("; ".join(reasons))
