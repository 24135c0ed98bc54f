"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 characters of 50 alphabets, each drawn by 20 people.

A character is named "Alphabet/character01", and its alphabet is its group. The makers are the 20 drawers of an
alphabet, in the order of its files: 0 to 19. Lake's background set has 964 characters of 30 alphabets for learning, his
evaluation set 659 of 20 others. Pixels are 1 for ink and 0 for paper.
"""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.image_classes import ImageClasses, read_image, resized

SIDE = 105  # pixels
DRAWERS = 20
RUN_CLASSES = 20  # of Lake's one-shot runs, with one training and one test image each

SMALL = {
    "small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
"""Lake's two small background sets of 5 alphabets each, chosen to be alike in difficulty for human learners."""

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
FILES = {
    "background": ("images_background.zip", "md5", "68d2efa1b9178cc56df9314c21c6e718"),
    "evaluation": ("images_evaluation.zip", "md5", "6b91aef0f799c5bb55b94e3f2daec811"),
    "small1": (
        "images_background_small1.zip",
        "sha256",
        "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    ),
    "small2": (
        "images_background_small2.zip",
        "sha256",
        "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
    ),
    "runs": (
        "one-shot-classification/all_runs.zip",
        "sha256",
        "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325",
    ),
}
"""Of each part the file in the authors' repository, and its checksum: MD5 as torchvision has it, or SHA-256."""


def omniglot(path: str | Path, part: str = "background", size: int = 28) -> ImageClasses:
    """Read the characters of one part of Omniglot (Lake, Salakhutdinov and Tenenbaum 2015).

    Images of 105 x 105 pixels, ink or paper, are made smaller with Lanczos's filter, as PIL has it.

    Args:
        path: an official zip file, a folder of it extracted (`Alphabet/character01/0001_01.png`), an npz file with
            `x28`, `x105_packed`, `label`, `alphabet`, `alphabet_names`, `character_alphabet`, `character_names`, and
            `drawer` where the makers are known, or a folder that holds such a file or folder under its usual name
            (`images_background`, with or without .zip, or `omniglot_background.npz`).
        part: "background", "evaluation", "small1" or "small2"; which one a folder is asked for. The small ones are also
            found as alphabets of the background set.
        size: height and width; 105 leaves images as they are.

    Raises:
        DataError: an unknown part, nothing of the kind at the path, a broken or incomplete file, an image of another
            size. The file is named.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> import bayesmeta as bm
        >>> folder = Path("omniglot/images_background/Greek/character01")  # noise stands for the official drawings
        >>> folder.mkdir(parents=True)
        >>> for drawer in range(1, 21):
        ...     pixels = np.random.default_rng(drawer).integers(0, 256, (105, 105), dtype=np.uint8)
        ...     Image.fromarray(pixels).save(folder / f"0001_{drawer:02d}.png")
        >>> bm.tasks.omniglot("omniglot")
        ImageClasses(20 images 1 x 28 x 28 of 1 classes in 1 groups)
    """
    if part not in FILES or part == "runs":
        raise DataError(f"expected a part 'background', 'evaluation', 'small1' or 'small2', got {part!r}")
    if size < 1:
        raise DataError(f"expected a size of at least one pixel, got {size}")
    found = _find(Path(path), part)
    images = _from_npz(found, size) if found.suffix == ".npz" else _from_pngs(found, size)
    return images.select_groups(SMALL[part]) if part in SMALL else images


def omniglot_runs(path: str | Path, size: int = 28) -> TaskDataset:
    """Read Lake's 20 one-shot runs: 20-way 1-shot tasks within an alphabet, with 20 test images each.

    The first 20 points of a task are its training images, one of each class in the order of their labels, and the other
    20 its test images. `evaluate(learner, runs, shots=[20], split=PrefixSplit)` scores a learner by them.

    Args:
        path: all_runs.zip, or a folder of it extracted.
        size: height and width; 105 leaves images as they are.

    Raises:
        DataError: a broken or incomplete file, or an image of another size. The file is named.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> import bayesmeta as bm
        >>> run = Path("all_runs/run01")  # noise stands for the official drawings
        >>> for part in ("training", "test"):
        ...     (run / part).mkdir(parents=True)
        ...     for number in range(1, 21):
        ...         pixels = np.random.default_rng(number).integers(0, 256, (105, 105), dtype=np.uint8)
        ...         Image.fromarray(pixels).save(run / part / f"{number:02d}.png")
        >>> with (run / "class_labels.txt").open("w") as file:
        ...     for number in range(1, 21):
        ...         print(f"run01/test/{number:02d}.png run01/training/{number:02d}.png", file=file)
        >>> bm.tasks.omniglot_runs("all_runs")
        TaskDataset(1 tasks, 40 to 40 points each)
    """
    contents = _read(Path(path))
    lists = sorted(name for name in contents if name.endswith("class_labels.txt"))
    if not lists:
        raise DataError(f"expected runs with class_labels.txt, as in all_runs.zip, got none in {path}")
    tasks, names = [], []
    for name in lists:
        folder = name.removesuffix("class_labels.txt")
        run = Path(folder).name
        pairs = [line.split() for line in contents[name].decode(errors="replace").splitlines() if line.strip()]
        test, train = [[Path(pair[side]).name for pair in pairs if len(pair) == 2] for side in (0, 1)]
        classes = sorted(set(train))
        if len(classes) != RUN_CLASSES or len(set(test)) != RUN_CLASSES or len(pairs) != RUN_CLASSES:
            raise DataError(f"expected {RUN_CLASSES} lines 'test image, training image' in {name}, got {len(pairs)}")
        files = [f"{folder}training/{file}" for file in classes] + [f"{folder}test/{file}" for file in sorted(test)]
        for file in files:
            if file not in contents:
                raise DataError(f"expected {file}, which {name} names, in {path}: the file is incomplete")
        truth = dict(zip(test, train, strict=True))
        labels = [*range(RUN_CLASSES), *(classes.index(truth[file]) for file in sorted(test))]
        pixels = np.stack([_character(contents[file], file, size) for file in files])
        x = torch.from_numpy(pixels).float().mul_(1.0 / 255.0)[:, None]
        tasks.append(Data.from_labels(x, torch.tensor(labels)))
        names.append(run)
    return TaskDataset(Data.stack(tasks), names)


def download_omniglot(folder: str | Path, part: str = "background") -> Path:
    """Fetch one official zip file from the authors' repository, once; nothing else in bayesmeta uses the network.

    Args:
        folder: where to put it; made if need be. A file that is there already, and is whole, is not fetched again.
        part: "background", "evaluation", "small1", "small2", or "runs" for the 20 one-shot runs.

    Returns:
        The path of the file, for `omniglot` or `omniglot_runs`.

    Raises:
        DataError: an unknown part, no connection, or a file that is not the official one by its checksum.

    Example:
        This one is not run with the others, because it fetches a file from the network:

            path = bm.tasks.download_omniglot("data")  # data/images_background.zip
            images = bm.tasks.omniglot(path)
    """
    if part not in FILES:
        raise DataError(f"expected one of the parts {list(FILES)}, got {part!r}")
    name, algorithm, checksum = FILES[part]
    target = Path(folder) / Path(name).name
    if target.exists():
        _verify(target.read_bytes(), algorithm, checksum, f"{target}: delete it, and it is fetched again")
        return target
    try:
        with urllib.request.urlopen(URL + name, timeout=60.0) as response:
            content = response.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"expected to fetch {URL + name}, got {reason}: without a connection, bring the file to {target} yourself"
        ) from error
    _verify(content, algorithm, checksum, f"{URL + name}: try again; nothing was kept")
    target.parent.mkdir(parents=True, exist_ok=True)
    # under its own name it is there as a whole or not at all
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    return target


def _verify(content: bytes, algorithm: str, checksum: str, where: str) -> None:
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise DataError(f"expected {algorithm} {checksum}, got {found} ({len(content)} bytes) for {where}")


def _find(path: Path, part: str) -> Path:
    """The file or folder to read."""
    if not path.exists():
        raise DataError(f"expected Omniglot at {path}, got nothing there: download_omniglot fetches it")
    if path.is_file():
        return path
    stems = [part, "background"] if part in SMALL else [part]
    stems = [FILES[stem][0].removesuffix(".zip") for stem in stems]
    names = [name for stem in stems for name in (stem, f"{stem}.zip", f"{stem.replace('images', 'omniglot')}.npz")]
    for name in names:
        if (path / name).exists():
            return path / name
    if any(path.glob("*/character*/*.png")):
        return path
    raise DataError(f"expected one of {', '.join(names)}, or folders of alphabets, in {path}, got none of them")


def _read(path: Path) -> dict[str, bytes]:
    """All PNG and text files of a zip file or folder, by their path in it."""
    if path.is_dir():
        files = {
            file.relative_to(path).as_posix(): file for pattern in ("*.png", "*.txt") for file in path.rglob(pattern)
        }
        return {name: file.read_bytes() for name, file in files.items() if not _hidden(name)}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((".png", ".txt")) and not _hidden(name)]
            return {name: archive.read(name) for name in names}
    except FileNotFoundError as error:
        raise DataError(f"expected a zip file or folder at {path}, got nothing there") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"expected a whole zip file, got {error} in {path}: fetch it again") from error


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _from_pngs(path: Path, size: int) -> ImageClasses:
    drawings: dict[str, list[str]] = {}
    contents = _read(path)
    for name in sorted(contents):
        if not re.fullmatch(r"(.*/)?[^/]+/character\d+/\d+_\d+\.png", name):
            if name.endswith(".png"):
                raise DataError(f"expected images Alphabet/character01/0001_01.png, got {name} in {path}")
            continue
        drawings.setdefault("/".join(name.split("/")[-3:-1]), []).append(name)
    if not drawings:
        raise DataError(f"expected images Alphabet/character01/0001_01.png, got none in {path}")
    for character, names in drawings.items():
        if len(names) != DRAWERS:
            raise DataError(
                f"expected {DRAWERS} drawings of every character, got {len(names)} of {character} in {path}: "
                "some files are missing or there twice"
            )
    pixels = [_character(contents[name], name, size) for names in drawings.values() for name in names]
    labels = np.repeat(list(drawings), DRAWERS)
    groups = [label.split("/")[0] for label in labels.tolist()]
    drawers = [int(Path(name).stem.split("_")[1]) for names in drawings.values() for name in names]
    return ImageClasses.from_arrays(np.stack(pixels), labels, groups, drawers)


def _character(content: bytes, name: str, size: int) -> np.ndarray:
    """Ink as 255 and paper as 0, `size size`."""
    pixels = read_image(content, name)
    if pixels.shape != (SIDE, SIDE):
        raise DataError(f"expected a grey image of {SIDE} x {SIDE} pixels, got shape {pixels.shape} in {name}")
    return resized(255 - pixels, (size, size), name)


def _from_npz(path: Path, size: int) -> ImageClasses:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            alphabets = file["alphabet_names"]
            characters = np.char.add(np.char.add(alphabets[file["character_alphabet"]], "/"), file["character_names"])
            label, groups = file["label"], alphabets[file["alphabet"]]
            drawers = file.get("drawer")
            packed = file["x28"] if size == 28 else file["x105_packed"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"expected an npz file of Omniglot, got {error} in {path}") from error
    except (KeyError, IndexError) as error:
        raise DataError(f"expected an npz file with the arrays of Omniglot, got {error} in {path}") from error
    if size == 28:
        return ImageClasses.from_arrays(packed, characters[label], groups, drawers)
    pixels = 255 * np.unpackbits(packed, axis=1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE)
    images = pixels if size == SIDE else np.stack([resized(image, (size, size)) for image in pixels])
    return ImageClasses.from_arrays(images, characters[label], groups, drawers)
