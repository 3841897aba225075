"""The user's own images: image files, NumPy arrays or CSV, as 28 x 28 grey images.

The rule: colours become grey. What is transparent becomes white, or black if the first such image
has bright ink. The longer side becomes 28 pixels with the aspect ratio kept; the image is centred,
and the rest is filled with the median of its border. The user's folder is never changed.
"""

import collections
import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
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
from support.files import atomic_write, cache_folder

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_IMAGES = "a PNG, JPEG, BMP, GIF or WebP image"
_MAX_IMAGE_PIXELS = 50_000_000
_MAX_BYTES = 2**32  # of one file, unpacked
# A tenth of the images is held out for testing, and at least as many as scores require.
_TEST_FRACTION, _MIN_TEST = 10, 128
_MIN_SPLIT = 4 * _MIN_TEST
_VERSION = 1  # of the rule: a change makes cached sets invalid
# Names of folders, files and arrays, such as `train`, `x_test`, `mnist_train.csv`, `validation`.
_PART = re.compile(r"(?:^[xy]?|[^a-z])(train|test|val)(?:ing|id|idation)?(?![a-z])")
_LABELS = re.compile(r"y(?![a-z])|y(?:train|test|val)|.*(?:label|target)")


def read(path: Path, log: Callable = print) -> tuple[list[tuple], tuple[str, ...], str]:
    """Reads a folder of images, or of folders of them by class, of arrays or of CSV; or one file.

    Args:
      path: The user's folder or file.
      log: Function of a line for the user.

    Returns:
      (images, labels) of the training and of the test set, uint8 `[n, 28, 28]` and uint8 `[n]`,
      all 0 without labels; the names of the labels, if they have any; and a sentence about what was
      read and what was done to it.

    Raises:
      DataError: If there is nothing usable or a damaged file; the message names it.
    """
    found = _files(path)
    by_reader = {
        _read_images: [file for file in found if file.suffix.lower() in _SUFFIXES],
        _read_arrays: [file for file in found if file.suffix.lower() in (".npz", ".npy")],
        _read_csv: [f for f in found if f.suffix.lower() == ".csv" and _csv_columns(f)],
    }
    usable = [(reader, files) for reader, files in by_reader.items() if files]
    if not usable:
        raise DataError(
            f"--data_dir={path} must have four IDX files, PNG, JPEG, BMP, GIF or WebP images, .npz "
            f"or .npy arrays, or .csv files with {NUM_PIXELS} columns of pixels, found "
            f"{', '.join(file.name for file in found[:3]) or 'nothing'}; nothing was downloaded"
        )
    if len(usable) > 1:
        names = " and ".join(files[0].name for _, files in usable)
        raise DataError(
            f"--data_dir={path} must have files of one form, found {names}; name one file, or move "
            "the others away"
        )
    ((reader, files),) = usable
    others = sorted(set(found) - set(files))
    arrays = _cached(path, files, lambda: _split(*reader(path, files)), log)
    sets = [(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")]
    names = tuple(arrays["class_names"].tolist())
    counts = [len(images) for images, _ in sets]
    labels = np.unique(np.concatenate([labels for _, labels in sets]))
    classes = "without labels"
    if len(labels) > 1:
        classes = f"of {len(labels)} classes" + (f" ({', '.join(names)})" if names else "")
    suffixes = collections.Counter(file.suffix[1:].upper() for file in files)
    forms = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.items())
    changed = int(arrays["changed"])
    done = f"{changed:,} were made {SIDE} x {SIDE} and grey" if changed else "all were unchanged"
    tested = f"{counts[1]:,} are for testing" if counts[1] else "too few to hold some out for tests"
    sentence = (
        f"Read {sum(counts):,} images {classes} from {forms} "
        f"file{'s' if len(files) > 1 else ''} in {path}: {done}; {tested}."
    )
    if unused := int(arrays["unused"]):
        sentence += f" {unused:,} test images without labels are not used."
    if others:
        sentence += f" Ignored {len(others):,} other files, such as {others[0].name}."
    return sets, names, sentence


def _files(path):
    """Returns the visible files up to two folders deep, without those of runs."""
    if path.is_file():
        return [path]
    require(path.is_dir(), f"--data_dir={path}", "a folder or file", "neither")
    files = [
        file
        for pattern in ("*", "*/*", "*/*/*")
        for file in sorted(path.glob(pattern))
        if file.is_file()
        and file.name.lower() not in ("thumbs.db", "desktop.ini")
        and not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(path).parts)
    ]
    runs = {file.parent for file in files if (file.parent / "checkpoints").is_dir()}
    return [file for file in files if file.parent not in runs]


def _cached(path, files, make, log):
    """Returns {name: array} of `make()`, from the cache unless a file has changed."""
    stats = [(os.fsencode(file), file.stat()) for file in files]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    fingerprint = hashlib.sha256(repr((_VERSION, facts)).encode()).hexdigest()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cache = cache_folder() / f"images-{name}.npz"
    try:
        with np.load(cache) as saved:
            if saved["fingerprint"] == fingerprint:
                return dict(saved)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # missing or damaged
    arrays = make()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(cache) as temporary:
            np.savez(temporary, fingerprint=np.array(fingerprint), **arrays)
    except OSError as error:
        log(f"Note: cannot write {cache} ({error.strerror}); the images are read every time.")
    return arrays


def _split(parts, class_names, changed):
    """Returns {name: array} of a training and a test set.

    Args:
      parts: {"train", "test", "val" or "": (images, labels or None)}.
      class_names: Names of the labels, if they have any.
      changed: Number of images that were not 28 x 28 and grey.
    """
    train = [parts[name] for name in ("", "train") if name in parts]
    test = [parts[name] for name in ("val", "test") if name in parts]
    if not train:
        train, test = test, []
    is_labelled = all(labels is not None for _, labels in train)
    unused = [images for images, labels in test if is_labelled and labels is None]  # Kaggle's
    if unused:
        test = [(images, labels) for images, labels in test if labels is not None]
    arrays = {"class_names": np.array(class_names, np.str_), "changed": np.array(changed)}
    arrays["unused"] = np.array(sum(map(len, unused)))
    empty = np.zeros([0, *IMAGE_SHAPE], np.uint8), np.zeros(0, np.uint8)
    for name, sets in (("train", train), ("test", test)):
        images = np.concatenate([empty[0], *(images for images, _ in sets)])
        labels = np.zeros(len(images), np.uint8)
        if is_labelled:
            labels = np.concatenate([empty[1], *(labels for _, labels in sets)])
        arrays |= {f"{name}_images": images, f"{name}_labels": labels}
    count = len(arrays["train_images"])
    if not test and count >= _MIN_SPLIT:
        # In random order, because images may be sorted by class.
        order = np.random.default_rng(0).permutation(count)
        held_out = max(_MIN_TEST, count // _TEST_FRACTION)
        for name in ("images", "labels"):
            array = arrays[f"train_{name}"][order]
            arrays |= {f"test_{name}": array[:held_out], f"train_{name}": array[held_out:]}
    return arrays


def _part(name):
    """Returns `train`, `test`, `val`, or an empty string, by the name of a file or array."""
    found = _PART.search(name.lower())
    return found[1] if found else ""


# Image files.


def _read_images(path, files):
    """Returns {part: (images, labels)}, the names of the classes, and how many were changed."""
    root = path if path.is_dir() else path.parent
    require(len(files) <= MAX_EXAMPLES, path, f"at most {MAX_EXAMPLES:,} images", len(files))
    folders = {file: file.relative_to(root).parts[:-1] for file in files}
    tops = {parts[0] for parts in folders.values() if parts}
    are_parts = all(map(_part, tops)) and "train" in map(_part, tops)
    by_part: dict = {}
    for file, parents in folders.items():
        part = _part(parents[0]) if parents and are_parts else ""
        classes = parents[1:] if part else parents
        if len(classes) > 1:
            raise DataError(
                f"{file}: expected images in the folder or in one folder per class; set "
                f"--data_dir to {root / parents[0]}"
            )
        by_part.setdefault(part, []).append((file, "".join(classes)))
    for members in by_part.values():
        without = [file for file, name in members if not name]
        if 0 < len(without) < len(members):
            raise DataError(
                f"{without[0]}: expected it in a folder named by its class, like other images"
            )
    # As text that can be printed; an empty name is that of no class.
    names = sorted({name for members in by_part.values() for _, name in members} - {""})
    require(len(names) <= NUM_CLASSES, path, f"at most {NUM_CLASSES} classes", len(names))
    rng, sets, changed = np.random.default_rng(0), {}, 0
    for part, members in by_part.items():
        rng.shuffle(members)  # sorted by class, they would be held out by class
        images, count = _to_grey((_open(file) for file, _ in members), len(members))
        labels = [names.index(name) for _, name in members if name]
        sets[part] = images, np.uint8(labels) if labels else None
        changed += count
    return sets, [one_line(name) for name in names], changed


def _open(path):
    """Returns the first frame of an image file, upright."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            size = image.width * image.height
            require(size <= _MAX_IMAGE_PIXELS, path, f"at most {_MAX_IMAGE_PIXELS:,} pixels", size)
            image.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG decodes large images faster
            return ImageOps.exif_transpose(image)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        with open(path, "rb") as file:
            found = describe(file.read(64))
        if found.endswith("image"):
            found = f"a damaged one ({one_line(error)})"
        raise DataError(f"{path}: expected {_IMAGES}, found {found}") from error


def _to_grey(images: Iterable, count: int):
    """Returns Pillow images as uint8 `[n, 28, 28]`, and how many of them were changed."""
    grey = np.empty([count, *IMAGE_SHAPE], np.uint8)
    changed, background = 0, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata
        # Shown only in a terminal.
        progress = tqdm(images, "images", count, leave=False, unit="image", disable=None)
        for place, image in enumerate(progress):
            changed += image.mode not in ("L", "1") or image.size != IMAGE_SHAPE
            if image.mode.startswith("I"):  # 16 bits
                image = Image.fromarray(np.uint8(np.asarray(image).clip(0, 65535) // 256))
            if image.has_transparency_data:
                ink, alpha = map(np.float32, image.convert("RGBA").convert("LA").split())
                if alpha.min() < 255:
                    if background is None:
                        background = 255 if (ink * alpha).sum() < 128 * alpha.sum() else 0
                    mixed = background + (ink - background) * alpha / 255
                    image = Image.fromarray(np.uint8(mixed.round()))
            image = image.convert("L")
            if image.size != IMAGE_SHAPE:
                pixels = np.asarray(image)
                border = np.concatenate([*pixels[[0, -1]], *pixels[:, [0, -1]].T])
                image = ImageOps.pad(
                    image, IMAGE_SHAPE, Image.Resampling.BILINEAR, color=int(np.median(border))
                )
            grey[place] = image
    return grey, changed


# Arrays.


def _read_arrays(path, files):
    """Returns {part: (images, labels)}, no names, and how many images were changed."""
    arrays: dict = {}
    for file in files:
        with open(file, "rb") as opened:
            head = opened.read(64)
            is_zip = head.startswith(b"PK")
            require(is_zip or head.startswith(b"\x93NUMPY"), file, "NumPy arrays", describe(head))
            try:
                size = file.stat().st_size
                if is_zip:
                    members = zipfile.ZipFile(opened).infolist()
                    size = sum(member.file_size for member in members)
                _check_size(file, size)
                opened.seek(0)
                loaded = np.load(opened, allow_pickle=False)
                if not is_zip:
                    loaded = {file.stem: loaded}
                # KMNIST's files have one array each, without a name.
                arrays |= {file.stem if n == "arr_0" else n: array for n, array in loaded.items()}
            except DataError:
                raise
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise DataError(f"{file}: expected arrays of numbers: {one_line(error)}") from error
    by_part: dict = {}
    for name, array in arrays.items():
        role = "labels" if _LABELS.match(name.lower()) else "images"
        by_part.setdefault(_part(name), {}).setdefault(role, []).append(array)
    sets, changed = {}, 0
    for part, roles in by_part.items():
        if sorted(map(len, roles.values())) != [1] * len(roles) or "images" not in roles:
            raise DataError(
                f"{path}: expected one array of images and one of labels, such as x_train and "
                f"y_train, found {', '.join(sorted(arrays))}"
            )
        images, count = _checked_images(roles["images"][0], path)
        labels = roles.get("labels", [None])[0]
        sets[part] = images, _checked_labels(labels, len(images), path)
        changed += count
    return sets, (), changed


def _check_size(file, size):
    require(size <= _MAX_BYTES, file, f"at most {_MAX_BYTES:,} bytes", f"{size:,}")


def _checked_images(images, path):
    """Returns an array's images as uint8 `[n, 28, 28]`, and how many of them were changed."""
    shape = list(images.shape)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, 4):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 2 and shape[1] == NUM_PIXELS:
        images = images.reshape(-1, *IMAGE_SHAPE)
    is_colour = images.ndim == 4 and images.shape[3] in (3, 4)
    is_valid = (images.ndim == 3 or is_colour) and 1 <= len(images) <= MAX_EXAMPLES
    require(is_valid, path, f"1 to {MAX_EXAMPLES:,} images [n, height, width]", shape)
    require(images.dtype.kind in "buif", path, "numbers as pixels", images.dtype)
    low, high = images.min(), images.max()
    expected = "pixels from 0 to 255, or from 0 to 1"
    # Comparisons with NaN are false.
    require(low >= 0 and high <= 255, path, expected, f"{low:g} to {high:g}")
    if images.dtype != np.uint8 or high <= 1:
        images = np.uint8(np.rint(images * np.float32(255 if high <= 1 else 1)))
    if images.shape[1:] == IMAGE_SHAPE:
        return images, 0
    return _to_grey(map(Image.fromarray, images), len(images))


def _checked_labels(labels, count, path):
    """Returns labels as uint8 `[n]`, also if they are one-hot; None if they are."""
    if labels is None:
        return None
    labels = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.ravel()
    require(len(labels) == count, path, f"{count:,} labels, one per image", f"{len(labels):,}")
    is_label = np.isin(labels, range(NUM_CLASSES))
    expected = f"labels from 0 to {NUM_CLASSES - 1}"
    require(is_label.all(), path, expected, one_line(labels[~is_label][:1]))
    return labels.astype(np.uint8)


# CSV.


def _read_csv(path, files):
    """Returns {part: (images, labels)}, no names, and that no image was changed."""
    sets: dict = {}
    for file in files:
        part = _part(file.stem)
        require(part not in sets, path, "one .csv file for training and one for tests", file.name)
        _check_size(file, file.stat().st_size)
        label, header = _csv_columns(file)
        try:
            with (
                open(file, encoding="utf-8-sig") as lines,
                tqdm(lines, file.name, leave=False, unit="line", disable=None) as progress,
            ):
                table = np.loadtxt(
                    progress,
                    np.float32,
                    delimiter=",",
                    quotechar='"',
                    skiprows=header,
                    ndmin=2,
                )
        except ValueError as error:
            raise DataError(f"{file}: expected numbers: {one_line(error)}") from error
        labels = None if label is None else table[:, label]
        pixels = table if label is None else np.delete(table, label, axis=1)
        images, _ = _checked_images(pixels, file)
        sets[part] = images, _checked_labels(labels, len(images), file)
    return sets, (), 0


def _csv_columns(file):
    """Returns the column of the labels or None, and the number of header lines.

    They are None if the file does not have 784 other columns.
    """
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        cells = [cell.strip(' "\n').lower() for cell in lines.readline(2**16).split(",")]
    label = None
    if "label" in cells or len(cells) == NUM_PIXELS + 1:
        label = cells.index("label") if "label" in cells else 0
    if len(cells) - (label is not None) != NUM_PIXELS:
        return None
    try:
        np.array(cells, np.float32)
    except ValueError:
        return label, 1
    return label, 0
