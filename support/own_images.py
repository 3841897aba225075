"""The user's own images: picture files, NumPy arrays or CSV, as 28 x 28 grey images.

The rule: colours become grey, transparency becomes white, the longer side becomes 28 pixels with
the aspect ratio kept, and the rest is filled with the median of the border. Ink is kept as it is,
or inverted. The user's folder is never changed.
"""

import csv
import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from support.errors import one_line
from support.files import atomic_write
from support.idx import MAX_EXAMPLES, NUM_PIXELS, SIDE, DataError, prefix_errors

MAX_CLASSES = 10
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
_ARRAYS = {".npz", ".npy"}
_MAX_IMAGE_PIXELS = 50_000_000
_MAX_UNPACKED_BYTES = 2**32
# One of ten images is held out for testing, if that leaves enough of them.
_TEST_FRACTION, _MIN_TEST = 10, 10
# Mean grey value of the images' borders above which their ink seems to be dark.
_BRIGHT_BORDER = 0.5
_VERSION = 1  # of the rule: a change makes cached sets invalid


@dataclasses.dataclass
class Images:
    """A folder's images.

    Attributes:
      train, test: uint8 `[n, 28, 28]`.
      train_labels, test_labels: uint8 `[n]`, or None without labels.
      class_names: Names of the labels, empty if they are only numbers.
      description: What was read, and what was done to it.
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] = ()
    description: str = ""


def cache_folder() -> Path:
    """Returns the folder of files that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "small_gans"


def read(folder: Path, invert: bool = False, log: Callable = print) -> Images:
    """Reads the images in a folder: pictures, folders of pictures by class, arrays or CSV.

    Args:
      folder: The user's folder.
      invert: Whether to exchange black and white.
      log: Function of a line for the user.

    Raises:
      DataError: If the folder has nothing usable or a damaged file; the message names it.
    """
    files = [path for path in sorted(folder.rglob("*")) if _is_visible(path, folder)]
    by_suffix = {
        "arrays": [path for path in files if path.suffix.lower() in _ARRAYS],
        "csv": [path for path in files if path.suffix.lower() == ".csv"],
        "pictures": [path for path in files if path.suffix.lower() in _SUFFIXES],
    }
    forms = [form for form, paths in by_suffix.items() if paths]
    if not forms:
        names = ", ".join(path.name for path in files[:3])
        raise DataError(
            f"{folder}: expected IDX files, PNG, JPEG, BMP, GIF or WebP images, .npz, .npy or "
            f".csv, found {names or 'nothing'}"
        )
    if len(forms) > 1:
        raise DataError(f"{folder}: expected files of one form, found {' and '.join(forms)}")
    reader = {"arrays": _read_arrays, "csv": _read_csv, "pictures": _read_pictures}[forms[0]]
    images = _cached(folder, by_suffix[forms[0]], reader)
    if invert:
        images.train, images.test = 255 - images.train, 255 - images.test
    log(images.description)
    border = np.concatenate([images.train[:, [0, -1]].ravel(), images.train[:, :, [0, -1]].ravel()])
    if border.mean() > 255 * _BRIGHT_BORDER:
        log("Note: the images look dark on white; --invert makes them bright on black, like MNIST.")
    if not len(images.test):
        log("Note: so few images have no test set; they cannot be scored.")
    return images


def _is_visible(path, folder):
    return path.is_file() and not any(
        part.startswith((".", "__")) for part in path.relative_to(folder).parts
    )


def _cached(folder, paths, reader):
    """Returns the result of a reader, from the cache if the files are unchanged."""
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(repr((_VERSION, facts)).encode()).hexdigest()[:24]
    file = cache_folder() / f"images-{key}.npz"
    fields = [field.name for field in dataclasses.fields(Images)]
    if file.exists():
        try:
            with np.load(file) as saved:
                values = {name: saved[name] for name in fields if name in saved}
            values["description"] = str(values["description"])
            values["class_names"] = tuple(values.get("class_names", np.array([])).tolist())
            return Images(**{"train_labels": None, "test_labels": None, **values})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            file.unlink()  # damaged: it is made again
    images = reader(folder, paths)
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {name: getattr(images, name) for name in fields}
    with atomic_write(file) as temporary:
        np.savez(temporary, **{name: value for name, value in values.items() if value is not None})
    return images


# Pictures.


def _read_pictures(folder, paths):
    parts = {}  # {"train" or "test" or "": [(path, class or None)]}
    for path in paths:
        *parents, _ = path.relative_to(folder).parts
        part = ""
        if parents and parents[0].lower() in ("train", "training", "test", "testing"):
            part = "test" if parents.pop(0).lower().startswith("test") else "train"
        if len(parents) > 1:
            raise DataError(f"{path}: expected images in the folder or in one folder per class")
        parts.setdefault(part, []).append((path, parents[0] if parents else None))
    entries = [entry for part in parts.values() for entry in part]
    names = sorted({name for _, name in entries if name is not None})
    if names and any(name is None for _, name in entries):
        raise DataError(f"{folder}: expected all images in folders named by class, or none")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{folder}: expected at most {MAX_CLASSES} classes, found {len(names)}")
    if len(entries) > MAX_EXAMPLES:
        raise DataError(
            f"{folder}: expected at most {MAX_EXAMPLES:,} images, found {len(entries):,}"
        )
    arrays = {}
    with tqdm(total=len(entries), unit=" images", leave=False, disable=None) as bar:
        for part, members in parts.items():
            images = []
            for path, _ in members:
                images.append(_read_picture(path))
                bar.update()
            labels = np.array([names.index(n) for _, n in members], np.uint8) if names else None
            arrays[part] = np.stack(images), labels
    what = f"{len(entries):,} image files" + (f" of {len(names)} classes" if names else "")
    return _assemble(arrays, tuple(names), folder, f"{what}, each as 28 x 28 grey pixels")


def _read_picture(path):
    with prefix_errors(path):
        try:
            with Image.open(path) as image:
                if image.width * image.height > _MAX_IMAGE_PIXELS:
                    raise DataError(f"expected at most {_MAX_IMAGE_PIXELS:,} pixels")
                image.seek(0)
                return _to_grey(ImageOps.exif_transpose(image))
        except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
            raise DataError(f"expected an image, found: {one_line(error)}") from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"the image is damaged: {one_line(error)}") from error


def _to_grey(image):
    """Returns a Pillow image as uint8 `[28, 28]`."""
    if image.mode in ("I;16", "I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) / 256).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image)
    image = image.convert("L")
    if image.size == (SIDE, SIDE):
        return np.asarray(image)
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    fill = int(np.median(border))
    return np.asarray(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.BOX, color=fill))


# Arrays.


def _read_arrays(folder, paths):
    arrays = {}
    for path in paths:
        with prefix_errors(path):
            arrays.update(_load_arrays(path))
    parts = {}
    with prefix_errors(folder):
        for part, images, labels in [
            ("train", "x_train", "y_train"),
            ("test", "x_test", "y_test"),
            ("", "images", "labels"),
        ]:
            if images in arrays:
                parts[part] = _checked(arrays[images], arrays.get(labels))
        if not parts and len(arrays) == 1:
            parts[""] = _checked(*arrays.values(), None)
    if not parts or ("test" in parts and len(parts) == 1):
        raise DataError(
            f"{folder}: expected the arrays x_train (y_train, x_test, y_test) or images (labels), "
            f"found {', '.join(sorted(arrays))}"
        )
    count = sum(len(images) for images, _ in parts.values())
    return _assemble(parts, (), folder, f"{count:,} images from {paths[0].name}")


def _load_arrays(path):
    """Returns {name: array} of a file; the name of an .npy file is its stem."""
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
        else:
            size = path.stat().st_size
        if size > _MAX_UNPACKED_BYTES:
            raise DataError(f"expected at most {_MAX_UNPACKED_BYTES:,} bytes, found {size:,}")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected NumPy arrays of numbers, found: {one_line(error)}") from error


def _checked(images, labels):
    """Returns images as uint8 `[n, 28, 28]` and labels as uint8 `[n]` or None."""
    if images.ndim == 2 and images.shape[1] == NUM_PIXELS:
        images = images.reshape(-1, SIDE, SIDE)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    is_colour = images.ndim == 4 and images.shape[-1] in (3, 4)
    if not (images.ndim == 3 or is_colour) or not 1 <= len(images) <= MAX_EXAMPLES:
        raise DataError(f"expected images [n, height, width], found {list(images.shape)}")
    if not np.issubdtype(images.dtype, np.number) or not np.isfinite(images).all():
        raise DataError(f"expected finite numbers as pixels, found {images.dtype}")
    if images.dtype != np.uint8:
        low, high = images.min(), images.max()
        if low < 0 or high > 255:
            raise DataError(f"expected pixels from 0 to 255 or 0 to 1, found {low} to {high}")
        is_fraction = high <= 1 and np.issubdtype(images.dtype, np.floating)
        images = np.rint(images * (255 if is_fraction else 1)).astype(np.uint8)
    if images.shape[1:] != (SIDE, SIDE):
        images = np.stack([_to_grey(Image.fromarray(image)) for image in images])
    if labels is None:
        return images, None
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
    labels = labels.argmax(axis=1) if is_one_hot else labels.ravel()
    if len(labels) != len(images):
        raise DataError(f"expected {len(images)} labels, one per image, found {len(labels)}")
    if not np.isin(labels, range(MAX_CLASSES)).all():
        raise DataError(f"expected labels from 0 to {MAX_CLASSES - 1}, found {labels.max()}")
    return images, labels.astype(np.uint8)


# CSV.


def _read_csv(folder, paths):
    parts = {}
    for path in paths:
        name = path.stem.lower()
        part = next((each for each in ("train", "test") if each in name), "")
        if part in parts:
            raise DataError(
                f"{path}: expected one CSV file, or one for training and one for testing"
            )
        with prefix_errors(path):
            parts[part] = _checked(*_parse_csv(path))
    trained = parts.get("train", parts.get(""))
    if trained and "test" in parts and (trained[1] is None) != (parts["test"][1] is None):
        parts.pop("test")  # such as Kaggle's, which are to be labelled
    if not parts or list(parts) == ["test"]:
        raise DataError(f"{folder}: expected a CSV file with training images")
    count = sum(len(images) for images, _ in parts.values())
    return _assemble(parts, (), folder, f"{count:,} images from CSV files")


def _parse_csv(path):
    """Returns the pixels `[n, 784]` and the labels `[n]` or None of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        first = [cell.strip().lower() for cell in next(csv.reader(file), [])]
    has_header = not first[:1] or not first[0].replace(".", "", 1).isdigit()
    label_column = None
    if "label" in first:
        label_column = first.index("label")
    elif len(first) == NUM_PIXELS + 1:
        label_column = 0
    if len(first) - (label_column is not None) != NUM_PIXELS:
        raise DataError(f"expected {NUM_PIXELS} columns of pixels, found {len(first)} columns")
    try:
        table = np.loadtxt(path, np.float32, delimiter=",", skiprows=int(has_header), ndmin=2)
    except ValueError as error:
        raise DataError(f"expected numbers: {one_line(error)}") from error
    if label_column is None:
        return table, None
    return np.delete(table, label_column, axis=1), table[:, label_column]


def _assemble(parts, class_names, folder, description):
    """Returns the Images of {"train", "test" or "": (images, labels)}."""
    images, labels = parts.get("train", parts.get("", (None, None)))
    if images is None:
        raise DataError(f"{folder}: expected training images")
    if "test" in parts:
        test, test_labels = parts["test"]
    else:  # the same images every time, whatever the order of the files
        count = len(images) // _TEST_FRACTION
        count = count if count >= _MIN_TEST else 0
        order = np.random.default_rng(0).permutation(len(images))
        held_out, kept = order[:count], np.sort(order[count:])
        test, images = images[held_out], images[kept]
        test_labels = None if labels is None else labels[held_out]
        labels = None if labels is None else labels[kept]
        if count:
            description += f"; {count:,} of them are held out for testing"
    return Images(images, labels, test, test_labels, class_names, f"Read {description}.")
