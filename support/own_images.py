"""The user's own images: image files, NumPy arrays or CSV, as 28 x 28 grey images.

The rule: colours become grey. What is transparent becomes white, or black if the first such image
has bright ink. The longer side becomes 28 pixels with the aspect ratio kept; the image is centred,
and the rest is filled with the median of its border. The user's folder is never changed.
"""

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from support.data_sets import (
    IMAGE_SHAPE,
    MAX_EXAMPLES,
    NUM_CLASSES,
    NUM_PIXELS,
    SIDE,
    describe,
    require,
)
from support.errors import DataError, one_line

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_IMAGES = "a PNG, JPEG, BMP, GIF or WebP image"
# A tenth of the images is held out for testing, and at least as many as scores require.
_TEST_FRACTION, _MIN_TEST = 10, 128
_MIN_SPLIT = 4 * _MIN_TEST
# Names of folders, files and arrays, such as `train`, `x_test`, `mnist_train.csv`, `validation`.
_PART = re.compile(r"(?:^[xy]?|[^a-z])(train|test|val)(?:ing|id|idation)?(?![a-z])")
_FOR_TESTS = ("test", "val")
_LABELS = re.compile(r"y(?![a-z])|y(?:train|test|val)|.*(?:label|target)[^ ]*$")


def read(path: Path) -> tuple[list[tuple], tuple[str, ...], str]:
    """Reads images, arrays or CSV: a folder, folders by class, or one file.

    Args:
      path: The user's folder or file.

    Returns:
      (images, labels) of the training and of the test set, uint8 `[n, 28, 28]` and uint8 `[n]`,
      all 0 without labels; the names of the labels, if they have any; and a sentence about what was
      read and what was done to it.

    Raises:
      DataError: If there is nothing usable or a damaged file; the message names it.
    """
    found = _files(path)
    pictures = [file for file in found if file.suffix.lower() in _SUFFIXES]
    files, reader = pictures, _read_images
    if not pictures:
        files, reader = [file for file in found if _has_arrays(file)], _read_arrays
    if not files:
        others = ", ".join(file.name for file in found[:3] if file != path)
        raise DataError(
            f"--data_dir must have four IDX files, PNG, JPEG, BMP, GIF or WebP images, .npz or "
            f".npy arrays, or .csv files with {NUM_PIXELS} columns of pixels, got {path}"
            f"{others and f' with {others}'}; nothing was downloaded"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about metadata, NumPy's about empty files
        images, labels, is_test, names, unused = _split(*reader(path, files))
    sets = [(images[mask], labels[mask]) for mask in (~is_test, is_test)]
    classes, (train, tests) = len(np.unique(labels)), (len(images) for images, _ in sets)
    sentence = f"Read {train:,} training and {tests:,} test images "
    sentence += f"of {classes} classes" if classes > 1 else "without labels"
    sentence += f" ({', '.join(names)})" if classes > 1 and names else ""
    sentence += f" from {len(files):,} file{'s' if len(files) > 1 else ''} in {path}, as "
    sentence += f"{SIDE} x {SIDE} grey images."
    if unused:
        sentence += f" {unused:,} test images without labels are not used."
    if ignored := sorted(set(found) - set(files)):
        sentence += f" Ignored {len(ignored):,} other files, such as {ignored[0].name}."
    return sets, names, sentence


def _files(path):
    """Returns the visible files up to two folders deep, without those of runs."""
    if path.is_file():
        return [path]
    files = [
        file
        for pattern in ("*", "*/*", "*/*/*")
        for file in sorted(path.glob(pattern), key=lambda file: file.parts)  # on Windows too
        if file.is_file()
        and file.name.lower() not in ("thumbs.db", "desktop.ini")
        and not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(path).parts)
    ]
    folders = {folder for file in files for folder in file.relative_to(path).parents}
    runs = {path / folder for folder in folders if (path / folder / "checkpoints").is_dir()}
    return [file for file in files if runs.isdisjoint(file.parents)]


def _split(images, labels, is_test, class_names=()):
    """Splits images into those for training and for tests, and drops unusable ones.

    Args:
      images: uint8 `[n, 28, 28]`.
      labels: Integers `[n]`; -1 for images without a label.
      is_test: Whether each image is for tests, `[n]`.
      class_names: Names of the labels, if they have any.

    Returns:
      The arguments, with uint8 labels; and the number of images that are not used.
    """
    if is_test.all():
        is_test = ~is_test
    if (labels[~is_test] < 0).any():
        labels = np.zeros(len(images))
    used = labels >= 0  # Kaggle's test.csv has no labels
    images, labels, is_test = images[used], np.uint8(labels[used]), is_test[used]
    if not is_test.any() and len(images) >= _MIN_SPLIT:
        order = np.random.default_rng(0).permutation(len(images))  # they may be sorted by class
        images, labels = images[order], labels[order]
        is_test[: max(_MIN_TEST, len(images) // _TEST_FRACTION)] = True
    return images, labels, is_test, tuple(class_names), np.count_nonzero(~used)


def _part(name):
    """Returns `train`, `test`, `val` or an empty string, by a file's or array's name."""
    found = _PART.search(name.lower())
    return found[1] if found else ""


# Image files.


def _read_images(path, files):
    """Returns the arguments of `_split`; the labels are those of folders."""
    root = path if path.is_dir() else path.parent
    require(len(files) <= MAX_EXAMPLES, path, f"at most {MAX_EXAMPLES:,} images", len(files))
    order = np.random.default_rng(0).permutation(len(files))  # they are sorted by class
    files = [files[place] for place in order]
    folders = [file.relative_to(root).parts[:-1] for file in files]
    tops = {_part(parents[0]) if parents else "" for parents in folders}
    are_parts = "train" in tops and "" not in tops
    classes = [parents[1:] if are_parts else parents for parents in folders]
    for file, parents in zip(files, classes, strict=True):
        if len(parents) > 1:
            raise DataError(
                f"{file}: expected images in the folder or in one folder per class; set "
                f"--data_dir to {root / file.relative_to(root).parts[0]}"
            )
    names = sorted({name for parents in classes for name in parents})
    require(len(names) <= NUM_CLASSES, path, f"at most {NUM_CLASSES} classes", len(names))
    if names and all(re.fullmatch("[0-9]", name) for name in names):
        names = list("0123456789")  # folders of digits are what they say
    labels = np.array([names.index(parents[0]) if parents else -1 for parents in classes])
    is_test = np.array([are_parts and _part(parents[0]) in _FOR_TESTS for parents in folders])
    without = np.flatnonzero((labels < 0) & ~is_test)
    if 0 < len(without) < np.count_nonzero(~is_test):
        raise DataError(
            f"{files[without[0]]}: expected it in a folder named by its class, like other images"
        )
    images = _to_grey(map(_open, files), len(files))
    return images, labels, is_test, map(one_line, names)


def _open(path):
    """Returns the first frame of an image file, upright."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if max(image.size) > 4 * SIDE:
                image.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG decodes large images faster
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataError(f"{path}: expected {_IMAGES} ({one_line(error)})") from error


def _to_grey(images: Iterable, count: int):
    """Returns Pillow images as uint8 `[n, 28, 28]`."""
    grey = np.empty([count, *IMAGE_SHAPE], np.uint8)
    background = None
    # Shown only in a terminal.
    progress = tqdm(images, "images", count, leave=False, unit="image", disable=None)
    for place, image in enumerate(progress):
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
        if image.has_transparency_data:
            bands = image.convert("RGBA").convert("LA").split()
            ink, alpha = (np.asarray(band, np.float32) for band in bands)
            if background is None and alpha.min() < 255 and alpha.any():
                background = 255 if (ink * alpha).sum() < 128 * alpha.sum() else 0
            behind = 255 if background is None else background
            mixed = behind + (ink - behind) * alpha / 255
            image = Image.fromarray(mixed.round().astype(np.uint8))
        image = image.convert("L")
        if image.size != IMAGE_SHAPE:
            pixels = np.asarray(image)
            border = np.concatenate([*pixels[[0, -1]], *pixels[:, [0, -1]].T])
            width, height = (max(1, round(SIDE * side / max(image.size))) for side in image.size)
            small = image.resize((width, height), Image.Resampling.BILINEAR)
            image = Image.new("L", IMAGE_SHAPE, int(np.median(border)))
            place_in = (SIDE - width) // 2, (SIDE - height) // 2
            image.paste(small, place_in)
        grey[place] = image
    return grey


# Arrays.


def _has_arrays(file):
    return file.suffix.lower() in (".npz", ".npy") or _csv_layout(file) is not None


def _csv_layout(file):
    """Returns the column of the labels or None, and the number of header lines.

    Returns None for a file that is not a .csv file of 784 columns and perhaps one of labels.
    """
    if file.suffix.lower() != ".csv":
        return None
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        cells = [cell.strip(' "\n').lower() for cell in lines.readline(2**16).split(",")]
    label = 0 if len(cells) == NUM_PIXELS + 1 else None
    label = cells.index("label") if "label" in cells else label
    if len(cells) - (label is not None) != NUM_PIXELS:
        return None
    return label, int(any(cell[:1].isalpha() for cell in cells))


def _load(file):
    """Returns {name: array} of an .npz, .npy or .csv file."""
    with open(file, "rb") as opened:
        head = opened.read(64)
        try:
            if layout := _csv_layout(file):
                options = {"delimiter": ",", "quotechar": '"', "encoding": "utf-8-sig", "ndmin": 2}
                table = np.loadtxt(file, np.float32, skiprows=layout[1], **options)
                if layout[0] is None:
                    return {f"{file.stem} images": table}
                images = np.delete(table, layout[0], axis=1)
                return {f"{file.stem} images": images, f"{file.stem} labels": table[:, layout[0]]}
            is_numpy = head.startswith((b"PK", b"\x93NUMPY"))
            require(is_numpy, file, "NumPy arrays", describe(head))
            opened.seek(0)
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {file.stem: loaded}
            # KMNIST's files have one array each, without a name.
            return {file.stem if n == "arr_0" else n: array for n, array in loaded.items()}
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file}: expected numbers: {one_line(error)}") from error


def _read_arrays(path, files):
    """Returns the arguments of `_split`; what an array is follows from its name."""
    arrays, by_part, blocks = {}, {}, []
    for file in files:
        loaded = _load(file)
        for name in arrays.keys() & loaded.keys():
            raise DataError(f"{path}: expected the array {name} once, found it also in {file.name}")
        arrays |= loaded
    for name in arrays:
        role = "labels" if _LABELS.match(name.lower()) else "images"
        by_part.setdefault(_part(name), {}).setdefault(role, []).append(name)
    for part, roles in by_part.items():
        if sorted(map(len, roles.values())) != [1] * len(roles) or "images" not in roles:
            raise DataError(
                f"{path}: expected one array of images and one of labels, such as x_train and "
                f"y_train, found {', '.join(sorted(arrays))}"
            )
        (name,) = roles["images"]
        images = _to_bytes(arrays[name], f"{path} ({name})")
        labels = np.full(len(images), -1)
        if "labels" in roles:
            (name,) = roles["labels"]
            labels, place = arrays[name], f"{path} ({name})"
            is_one_hot = labels.ndim == 2 and labels.shape[1] > 1
            labels = labels.argmax(axis=1) if is_one_hot else labels.ravel()
            require(len(labels) == len(images), place, f"{len(images):,} labels", len(labels))
            wrong = labels[~np.isin(labels, range(NUM_CLASSES))]
            require(not len(wrong), place, f"labels from 0 to {NUM_CLASSES - 1}", wrong[:1])
        blocks.append((images, labels, np.full(len(images), part in _FOR_TESTS)))
    return map(np.concatenate, zip(*blocks, strict=True))


def _to_bytes(images, place):
    """Returns an array's images as uint8 `[n, 28, 28]`."""
    shape = list(images.shape)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, 4):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 2 and shape[1] == NUM_PIXELS:
        images = images.reshape(-1, *IMAGE_SHAPE)
    is_colour = images.ndim == 4 and images.shape[3] in (3, 4)
    is_valid = (images.ndim == 3 or is_colour) and 1 <= len(images) <= MAX_EXAMPLES
    require(is_valid, place, f"1 to {MAX_EXAMPLES:,} images [n, height, width]", shape)
    require(images.dtype.kind in "buif", place, "numbers as pixels", images.dtype)
    low, high = images.min(), images.max()
    # Comparisons with NaN are false.
    is_valid = low >= 0 and high <= 255
    require(is_valid, place, "pixels from 0 to 255, or from 0 to 1", f"{low:g} to {high:g}")
    if images.dtype != np.uint8 or high <= 1:
        images = np.uint8(np.rint(images * np.float32(255 if high <= 1 else 1)))
    if images.shape[1:] == IMAGE_SHAPE:
        return images
    return _to_grey(map(Image.fromarray, images), len(images))
