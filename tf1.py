"""Runs TensorFlow 1 programs unmodified: `python tf1.py SCRIPT ARGS...`.

The program gets a `tensorflow` with TensorFlow 1's names: those of `tensorflow.compat.v1`, and
for what TensorFlow 2 removed those of tf_keras (`tf.layers`, RNN cells, Keras 2), tf_slim
(`tf.contrib.layers`, `slim`) and `input_data`. `substituted` does the same while one file is
imported. Importing this module imports no TensorFlow and changes nothing.
"""

import ast
import builtins
import collections.abc
import contextlib
import importlib
import importlib.util
import inspect
import itertools
import os
import pickle
import re
import sys
import time
import types
import warnings
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

from support import user_code
from support.errors import UserError, broken_package, imports_of, one_line, user_message

with imports_of("Error"):
    import numpy as np
    from absl import flags

    import input_data
    from support import data_sets, terminal

_ROOT = Path(__file__).resolve().parent
_DATA = _ROOT / "MNIST_data"
# Keras 2; the default API of tf_keras requires eager execution.
_KERAS = "tf_keras.api._v1.keras"
_LAYERS, _CELLS = (f"{_KERAS}.__internal__.legacy.{name}" for name in ("layers", "rnn_cell"))
_KERAS_NAME = re.compile(r"^(tensorflow\.)?keras\b")
_V1 = "tensorflow.compat.v1"

# Modules of TensorFlow 1: the modules that have their names today, imported at first use.
MODULES = {
    "tensorflow": [_V1],
    "tensorflow.app": [f"{_V1}.app"],
    "tensorflow.contrib.data": [f"{_V1}.data", f"{_V1}.data.experimental"],
    "tensorflow.contrib.distributions": [f"{_V1}.distributions"],
    "tensorflow.contrib.framework": ["tf_slim", _V1],
    "tensorflow.contrib.image": [f"{_V1}.image"],
    "tensorflow.contrib.layers": ["tf_slim.layers", "tf_slim", _LAYERS],
    "tensorflow.contrib.layers.python.layers": ["tf_slim.layers", "tf_slim"],
    "tensorflow.contrib.losses": ["tf_slim.losses"],
    "tensorflow.contrib.metrics": ["tf_slim.metrics", f"{_V1}.metrics"],
    "tensorflow.contrib.rnn": [_CELLS, f"{_V1}.nn"],
    "tensorflow.contrib.slim": ["tf_slim"],
    "tensorflow.contrib.summary": [f"{_V1}.summary"],
    "tensorflow.contrib.tensorboard.plugins.projector": ["tensorboard.plugins.projector"],
    "tensorflow.contrib.training": ["tf_slim.training"],
    "tensorflow.layers": [_LAYERS],
    "tensorflow.nn": [f"{_V1}.nn"],
    "tensorflow.nn.rnn_cell": [_CELLS],
    "tensorflow.train": [f"{_V1}.train"],
}
# Names of before 1.0 -> their successors.
RENAMED = {
    "all_variables": "global_variables",
    "batch_matmul": "matmul",
    "complex_abs": "abs",
    "concat_v2": "concat",
    "initialize_all_tables": "tables_initializer",
    "initialize_all_variables": "global_variables_initializer",
    "initialize_local_variables": "local_variables_initializer",
    "initialize_variables": "variables_initializer",
    "inv": "reciprocal",
    "listdiff": "setdiff1d",
    "mul": "multiply",
    "neg": "negative",
    "pack": "stack",
    "select": "where",
    "sub": "subtract",
    "unpack": "unstack",
}
CROSS_ENTROPIES = (
    "sigmoid_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits",
    "sparse_softmax_cross_entropy_with_logits",
)
# What cannot run: name -> what to use instead. The longest name that fits is reported.
INSTEAD = {
    "scipy": "pip install scipy",
    "tensorflow.contrib": "TensorFlow 2 removed tf.contrib; write it with tf.nn, tf.layers or slim",
    "tensorflow.contrib.eager": "eager programs run without this runner, on tensorflow itself",
    "tensorflow.contrib.factorization": "use scikit-learn's KMeans or GaussianMixture",
    "tensorflow.contrib.learn": "write the model with tf.layers and train it in a Session",
    "tensorflow.contrib.tensor_forest": "use scikit-learn's RandomForestClassifier",
    "tensorflow.estimator": "call the model function and train it in a Session",
    "tensorflow.examples": "only tutorials.mnist.input_data is available",
}
# Names that NumPy dropped -> what they were.
NUMPY = {
    **{name: getattr(builtins, name) for name in ("bool", "complex", "float", "int", "object")},
    "Inf": np.inf,
    "NaN": np.nan,
    "float_": np.float64,
    "long": int,
    "product": np.prod,
    "str": str,
    "unicode": str,
}
_OTHER_SETS = ("fashion", "kmnist", "emnist", "notmnist", "not_mnist", "cifar", "svhn")


# The modules.


class Module(types.ModuleType):
    """A module of given names, known submodules and the names of other modules.

    Attributes:
      sources: The other modules, or their names.
    """

    def __init__(self, name, names, finder):
        super().__init__(name)
        self.__path__ = []
        self.__dict__.update(names, sources=[*MODULES.get(name, ())], _finder=finder)

    def __getattr__(self, name):
        full_name = f"{self.__name__}.{name}"
        if self._finder.knows(full_name):
            return self._finder.module(full_name)
        for source in () if name.startswith("__") else self.sources:
            source = _import(source) if isinstance(source, str) else source
            if hasattr(source, name):
                return getattr(source, name)
        raise AttributeError(_absence(full_name), name=name, obj=self)


class Finder:
    """Finder for `sys.meta_path` of modules of TensorFlow 1, and of Keras 2.

    Args:
      tensorflow: The tensorflow that was imported.
      others: More modules: {name: {name: value}}.
    """

    def __init__(self, tensorflow, others=()):
        deprecated = r"`(tf\.|layer\.|.*[cC]ell)"
        warnings.filterwarnings("ignore", deprecated, UserWarning)
        names = {**_changed_names(tensorflow.compat.v1), **dict(others)}
        known = {*MODULES, *names}
        old = [name for name in known if name.startswith("tensorflow")]
        known |= {parent for name in old for parent in _prefixes(name)}
        self._modules = {name: Module(name, names.get(name, {}), self) for name in known}
        module = self.module("tensorflow")
        module.sources.append(tensorflow)
        module.__path__ = [*tensorflow.__path__, *tensorflow.compat.v1.__path__]
        module.__version__ = tensorflow.__version__

    def knows(self, name: str) -> bool:
        """Returns whether it has a module of that name."""
        return name in self._modules or bool(_KERAS_NAME.match(name))

    def module(self, name: str) -> types.ModuleType:
        """Returns the module of a name that it knows."""
        return self._modules.get(name) or _keras_module(name)

    def find_spec(self, name, path=None, target=None):
        if self.knows(name):
            return importlib.util.spec_from_loader(name, self)
        if name.startswith(("tensorflow.contrib.", "tensorflow.examples.")):
            # Not a ModuleNotFoundError, which `from X import Y` would hide.
            raise ImportError(_absence(name), name=name)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = self.module(module.__name__)


def _absence(name):
    """Returns a message that a name of TensorFlow 1 is not available."""
    shown = re.sub("^tensorflow", "tf", name)
    hints = [INSTEAD[prefix] for prefix in _prefixes(name) if prefix in INSTEAD]
    return f"{shown} is not available: {(hints or ['TensorFlow 2 does not have it'])[-1]}"


def _prefixes(name):
    """Returns the names of a module's parents, the uppermost first, and its own."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))


def _keras_module(name):
    """Returns the module of Keras 2 with that name."""
    _import(f"{_KERAS}.datasets.mnist").load_data = _load_data
    utils = importlib.import_module(f"{_KERAS}.utils")
    utils.np_utils = utils
    try:
        return importlib.import_module(_KERAS_NAME.sub(_KERAS, name, count=1))
    except ModuleNotFoundError:  # older versions had more: keras.layers.core is keras.layers
        return _keras_module(name.rpartition(".")[0])


def _import(name):
    if name.startswith("tf_slim") and name not in sys.modules:
        _repair_tf_slim()
    try:
        return importlib.import_module(name)
    except AttributeError as error:  # it is older than TensorFlow
        raise broken_package(name.partition(".")[0], error) from error


def _repair_tf_slim():
    """Puts names back where tf_slim 1.1.0 and TensorFlow's own layers look for them."""
    import tensorflow.compat.v1 as v1
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import array_ops, control_flow_ops, variable_scope

    moved = {
        ops: ["IndexedSlices", "Tensor"],
        array_ops: ["stack", "unstack"],
        control_flow_ops: ["Assert", "case", "cond", "while_loop"],
    }
    for module, names in moved.items():
        for name in names:
            if not hasattr(module, name):
                setattr(module, name, getattr(v1, name))
    variable_scope.variable = v1.Variable
    for name in ("legacy_tf_layers", "legacy_tf_layers.normalization"):
        sys.modules[f"tf_keras.{name}"] = _import(f"tf_keras.src.{name}")


# Functions whose arguments or names changed.


def _changed_names(v1):
    """Returns names that changed, or whose arguments did: {module: {name: value}}."""
    nn, summary = v1.nn, v1.summary
    flag_names = {**vars(v1.flags), "DEFINE_integer": _number_definer(v1)}
    mnist = {name: value for name, value in vars(input_data).items() if not name.startswith("_")}
    mnist |= {"read_data_sets": read_data_sets, "load_mnist": read_data_sets}
    return {
        "tensorflow": {
            **{old: getattr(v1, new) for old, new in RENAMED.items()},
            "concat": _axis_first(v1.concat, ["axis", "values"]),
            "split": _axis_first(v1.split, ["axis", "num_or_size_splits", "value"]),
            "histogram_summary": summary.histogram,
            "image_summary": summary.image,
            "merge_all_summaries": summary.merge_all,
            "merge_summary": summary.merge,
            "scalar_summary": summary.scalar,
        },
        "tensorflow.contrib.learn.datasets": {"load_dataset": lambda *_: read_data_sets(_DATA)},
        "tensorflow.contrib.learn.datasets.mnist": mnist,
        "tensorflow.contrib.learn.python.learn.datasets.mnist": mnist,
        "tensorflow.examples.tutorials.mnist.input_data": mnist,
        "tensorflow.app.flags": flag_names,
        "tensorflow.flags": flag_names,
        "tensorflow.nn": {
            "rnn": nn.static_rnn,
            "bidirectional_rnn": nn.static_bidirectional_rnn,
            **{name: _logits_first(getattr(nn, name)) for name in CROSS_ENTROPIES},
        },
        "tensorflow.train": {"SummaryWriter": summary.FileWriter},
    }


def _logits_first(function):
    """Returns a cross-entropy whose arguments by position are (logits, targets).

    That was the order before 1.0. TensorFlow 1 then required keywords, and TensorFlow 2 takes
    (labels, logits), so that old calls by position would silently compute something else.
    """

    def wrapped(*args, **names):
        if "targets" in names:
            names["labels"] = names.pop("targets")
        names.update(zip(("logits", "labels"), args, strict=False))
        return function(**names)

    return wrapped


def _axis_first(function, order):
    """Returns a function that also takes its arguments in the `order` of before 1.0."""
    renamed = {"concat_dim": "axis", "split_dim": "axis", "num_split": "num_or_size_splits"}

    def wrapped(*args, **names):
        names = {renamed.get(name, name): value for name, value in names.items()}
        if args and isinstance(args[0], int | np.integer):
            names, args = {**dict(zip(order, args, strict=False)), **names}, ()
        return function(*args, **names)

    return wrapped


def _number_definer(v1):
    """Returns a DEFINE_integer that also takes np.inf as the default, as before 1.5."""

    def define(*args, **names):
        default = args[1] if len(args) > 1 else names.get("default", names.get("default_value"))
        kind = v1.flags.DEFINE_float if isinstance(default, float) else v1.flags.DEFINE_integer
        return kind(*args, **names)

    return define


# The data.


def read_data_sets(train_dir="MNIST_data", fake_data=False, *args, **options):
    """Reads MNIST in a folder, or the packaged files if it has none."""
    source_url = options.get("source_url") or (args[5] if len(args) > 5 else None)
    folder = Path(train_dir).expanduser()
    exist = len(data_sets.find(folder)) == len(data_sets.FILES)
    if not (source_url or exist or folder == _DATA):
        if any(name in str(folder).lower() for name in _OTHER_SETS):
            raise UserError(f"{folder} must contain {', '.join(data_sets.FILES)}")
        print(f"{folder} has no MNIST; reading {_DATA}.", file=sys.stderr)
        folder = _DATA
    return input_data.read_data_sets(folder, fake_data, *args, **options)


def _load_data(path="mnist.npz"):
    """Returns the packaged MNIST as `keras.datasets.mnist.load_data` does."""
    return tuple(data_sets.read(_DATA))


# Substitution for one file, or for a process.


@contextlib.contextmanager
def substituted() -> Iterator[None]:
    """Context manager in which `tensorflow` and `keras` have TensorFlow 1's names.

    Modules that are imported in it keep them. NumPy, Python's names and flags do not change.
    """
    import tensorflow

    finder = Finder(tensorflow)
    before = _insert(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if finder.knows(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def import_file(path: str | Path, module_name: str) -> types.ModuleType:
    """Imports the file of a class; one of TensorFlow 1 with `substituted` names.

    That is one that imports `tensorflow` itself and does not mention `compat.v1`. Then TensorFlow
    2's behaviour is turned off, except for resource variables. In other files, too, `tf.layers` is
    that of Keras 2.
    """
    import tensorflow.compat.v1 as v1

    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # read at the first use of tf.layers
    text = Path(path).read_text(errors="replace")
    is_old = re.search(r"^\s*(import|from) tensorflow(?!\.compat)\b", text, re.MULTILINE)
    if not is_old or re.search(r"\bcompat(\.| import )v[12]\b", text):
        return user_code.import_file(path, module_name)
    v1.disable_v2_behavior()
    v1.enable_resource_variables()  # loops in the graph need them

    def import_substituted(*args, **names):
        with substituted():
            return builtins.__import__(*args, **names)

    # Imports within its methods, which run later, find this function too.
    names = {**vars(builtins), "__import__": import_substituted}
    return user_code.import_file(path, module_name, __builtins__=names)


def _insert(finder):
    """Puts a finder in front; returns the modules that it hides."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if finder.knows(name)}
    sys.modules["tensorflow"] = finder.module("tensorflow")
    sys.meta_path.insert(0, finder)
    return before


def install(folder):
    """Substitutes TensorFlow 1, and what libraries have dropped since.

    Args:
      folder: The program's. If it has no `input_data.py`, the tutorial's is imported under that
        name, as programs of 2016 do.
    """
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # "\\s" in old strings
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
    terminal.import_tensorflow()
    import tensorflow

    v1 = tensorflow.compat.v1
    v1.disable_v2_behavior()
    others = {"scipy.misc": SCIPY_MISC, "cPickle": vars(pickle)}
    if not importlib.util.find_spec("scipy"):
        others["scipy"] = {}
    finder = Finder(tensorflow, others)
    _insert(finder)
    if not (folder / "input_data.py").exists():
        tutorial = "tensorflow.examples.tutorials.mnist.input_data"
        sys.modules["input_data"] = finder.module(tutorial)
    _relax_tensorflow(v1)
    for name, value in NUMPY.items():
        if name not in vars(np):
            setattr(np, name, value)
    for name in collections.abc.__all__:
        setattr(collections, name, getattr(collections.abc, name))
    spec = collections.namedtuple("spec", "args varargs keywords defaults")
    inspect.getargspec = lambda function: spec(*inspect.getfullargspec(function)[:4])
    builtins.xrange = range
    time.clock = time.perf_counter


def _relax_tensorflow(v1):
    """Allows what TensorFlow 1 allowed; the only changes of TensorFlow's own objects."""
    from tensorflow.python.training import slot_creator

    init, create = v1.Dimension.__init__, slot_creator._create_slot_var

    def of_whole_float(self, value):  # 100 / 2
        is_whole = isinstance(value, float) and value.is_integer()
        init(self, int(value) if is_whole else value)

    def in_reusing_scope(*args, **names):  # minimize() below reuse_variables()
        scope = v1.get_variable_scope()
        reuse, scope._reuse = scope.reuse, v1.AUTO_REUSE if scope.reuse else scope.reuse
        try:
            return create(*args, **names)
        finally:
            scope._reuse = reuse

    v1.Dimension.__init__, slot_creator._create_slot_var = of_whole_float, in_reusing_scope
    for name in flags.FLAGS:  # absl has some of its own, such as log_dir
        flags.FLAGS[name].allow_override = True
    flags.FlagValues._parse_flags = lambda values: values(sys.argv, known_only=True)


def _toimage(arr, cmin=None, cmax=None, mode=None, **_):
    from PIL import Image

    arr = np.squeeze(arr)
    if mode == "F":  # floats unchanged
        return Image.fromarray(arr.astype(np.float32))
    if arr.dtype != np.uint8:  # stretched to 0..255
        low = arr.min() if cmin is None else cmin
        width = (arr.max() if cmax is None else cmax) - low
        arr = np.clip((arr - low) * (255.0 / (width or 1)) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(arr)


def _imresize(arr, size, interp="bilinear", mode=None):
    from PIL import Image

    image = _toimage(arr, mode=mode)
    if isinstance(size, int | np.integer):
        size = size / 100
    if isinstance(size, float):
        size = [int(side * size) for side in image.size[::-1]]
    return np.array(image.resize((size[1], size[0]), Image.Resampling[interp.upper()]))


def _imread(name, flatten=False, mode=None):
    from PIL import Image

    image = Image.open(name)
    return np.array(image.convert("F" if flatten else mode or image.mode))


SCIPY_MISC = {
    "imread": _imread,
    "imresize": _imresize,
    "imsave": lambda name, arr, format=None: _toimage(arr).save(name, format),
    "toimage": _toimage,
}


# Python 2.


def _own_files(script):
    """Returns a program's files: the script, and what it imports of its folder."""
    files = [script]
    for path in files:
        lines = rb"^\s*(?:from[ \t]+([\w.]+)|import[ \t]+([\w., \t]+))"
        imports = re.findall(lines, path.read_bytes(), re.MULTILINE)
        for name in re.findall(rb"[\w.]+", b" ".join(map(b"".join, imports))):
            inner = name.decode().strip(".").replace(".", "/")
            for folder in {script.parent, path.parent}:
                for each in (folder / f"{inner}.py", folder / inner / "__init__.py"):
                    if each.is_file() and each not in files:
                        files.append(each)
    return files


def _is_python_3(data, path):
    with contextlib.suppress(SyntaxError):
        return bool(ast.parse(data, str(path)))
    return False


def _translate_python_2(script):
    """Makes imports translate the program's files if one of them is not Python 3."""
    if not importlib.util.find_spec("fissix"):
        return
    from fissix import refactor
    from fissix.pgen2.parse import ParseError
    from fissix.pgen2.tokenize import TokenError

    tool = refactor.RefactoringTool(refactor.get_fixers_from_package("fissix.fixes"))
    to_code = SourceFileLoader.source_to_code
    is_python_2 = not all(_is_python_3(path.read_bytes(), path) for path in _own_files(script))

    def source_to_code(self, data, path, **options):
        is_own = script.parent in Path(path).parents and "site-packages" not in path
        if is_own and (is_python_2 or not _is_python_3(data, path)):
            text = importlib.util.decode_source(data).expandtabs(8)
            try:
                translated = tool.refactor_string(f"{text}\n", path)
            except (ParseError, TokenError, SyntaxError):  # not Python 2 either
                return to_code(self, data, path, **options)
            data = ast.parse(str(translated), path)
            if not re.search(r"^from __future__ import.*\bdivision", text, re.MULTILINE):
                data = ast.fix_missing_locations(_Division().visit(data))
        return to_code(self, data, path, **options)

    SourceFileLoader.source_to_code = source_to_code
    builtins._python_2_divide = _divide


class _Division(ast.NodeTransformer):
    """Replaces `/` with Python 2's division."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("_python_2_divide", ast.Load()), [node.left, node.right], [])

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        value = ast.parse(ast.unparse(node.target), mode="eval").body
        return ast.Assign([node.target], self.visit(ast.BinOp(value, ast.Div(), node.value)))


def _divide(left, right):
    integers = isinstance(left, int | np.integer) and isinstance(right, int | np.integer)
    return left // right if integers else left / right


# The runner.


def run(script: Path, args: list[str]):
    """Runs a program as `__main__`; its folder replaces this one on `sys.path`."""
    install(script.parent)
    _translate_python_2(script)
    names = {path.stem for path in _ROOT.iterdir()} & {
        path.stem for path in script.parent.iterdir()
    }
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]  # the program's own modules of these names come first
    sys.argv, sys.path[0] = [str(script), *args], str(script.parent)
    sys.dont_write_bytecode = True
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(script)
    code = SourceFileLoader("__main__", str(script)).get_code("__main__")
    assert code is not None  # for the type checker
    exec(code, vars(main))


def _explain(error, folder):
    """Returns what cannot run, in one line with the program's; None for another error."""
    message = user_message(error)
    if isinstance(error, SyntaxError):
        message = error.msg
        if not importlib.util.find_spec("fissix"):
            message += "; if it is Python 2, `pip install fissix` lets this runner translate it"
    elif isinstance(error, ImportError) or isinstance(getattr(error, "obj", None), Module):
        message = message or one_line(error)
    elif "ubyte" in str(getattr(error, "filename", "")):
        message = f"{message}; copy the files of {_DATA} there"
    line = user_code.find_line(error, [folder], [Path(__file__)])
    if message is None or line is None:
        return message
    return f"{line.path.name}, line {line.number}: {message}"


def main(argv):
    usage = "usage: python tf1.py SCRIPT.py ARGS..."
    given = argv[1] if len(argv) > 1 else ""
    if given in ("-h", "--help"):
        print(f"{usage}\n\nRuns a TensorFlow 1 program unmodified, with its arguments.")
        return
    script = Path(given).resolve()
    if not script.is_file():
        sys.exit(f"Error: the program to run must be a file, got {given or 'none'}; {usage}")
    try:
        run(script, argv[2:])
    except Exception as error:
        message = _explain(error, script.parent)
        if message is None:
            raise
        sys.exit(f"Error: {message}")


if __name__ == "__main__":
    main(sys.argv)
