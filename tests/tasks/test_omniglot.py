"""Omniglot from zip files, folders and npz files; its one-shot runs; fetching it. No test uses the network."""

import hashlib
import http.client
import io
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.tasks.images import omniglot as module
from bayesmeta.tasks.images.episodes import Episodes
from bayesmeta.tasks.images.omniglot import FILES, SMALL, download_omniglot, omniglot, omniglot_runs
from bayesmeta.tasks.source import ClassSplit, PrefixSplit
from tests.evaluation.exact import ClassShares

CHARACTERS = ("Greek/character02", "Greek/character01", "Latin/character01")  # not in order


def png(ink: tuple[int, int], side: int = 105) -> bytes:
    """White paper of one bit a pixel, as the official files are, with one pixel of ink."""
    image = Image.new("1", (side, side), 1)
    image.putpixel(ink, 0)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawings(root: str = "images_background/") -> dict[str, bytes]:
    """Drawing d of character c has its ink in column 10 c and row d."""
    return {
        f"{root}{character}/{c:04d}_{d:02d}.png": png((10 * c, d))
        for c, character in enumerate(CHARACTERS)
        for d in range(1, 21)
    }


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/images_background/._0001_01.png", b"what macOS adds")
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def extracted(path: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_zip_files_and_folders_have_ink_of_1_and_characters_in_order(tmp_path: Path) -> None:
    images = omniglot(zipped(tmp_path / "images_background.zip", drawings()), size=105)
    assert images.class_names == tuple(sorted(CHARACTERS))
    assert images.group_names == ("Greek", "Latin")
    assert images.counts.tolist() == [20, 20, 20]
    assert images.makers is not None
    assert images.makers.tolist() == [*range(20)] * 3
    for n in range(60):
        where = (images.images[n, 0] == 255).nonzero().tolist()
        c = CHARACTERS.index(images.class_names[int(images.labels[n])])
        assert where == [[n % 20 + 1, 10 * c]]
        assert images.images[n].sum() == 255
    folder = extracted(tmp_path / "unzipped", drawings())
    for path in (folder, folder / "images_background", tmp_path):
        again = omniglot(path, size=105)
        assert torch.equal(again.images, images.images)
        assert again.class_names == images.class_names
    small = omniglot(tmp_path)
    assert small.shape == (1, 28, 28)
    # a new pixel is 3.75 wide: the ink is in the blackest of them, or on its border
    place = lambda x: torch.stack([x.flatten(1).argmax(1) // x.shape[-1], x.flatten(1).argmax(1) % x.shape[-1]], -1)
    distance = (place(small.images) + 0.5) * 3.75 - (place(images.images) + 0.5)
    assert distance.abs().max() < 3.75 / 2 + 0.5
    query = Episodes(images, 2).draw(3, ClassSplit.at(1, 1), torch.Generator().manual_seed(0)).query
    assert query.x.unique().tolist() == [0.0, 1.0]


def test_parts_are_found_by_their_names(tmp_path: Path) -> None:
    zipped(tmp_path / "images_background.zip", drawings())
    zipped(tmp_path / "images_evaluation.zip", drawings("images_evaluation/"))
    assert omniglot(tmp_path, "evaluation").num_classes == 3
    with pytest.raises(DataError, match="'background', 'evaluation', 'small1' or 'small2', got 'test'"):
        omniglot(tmp_path, "test")
    with pytest.raises(DataError, match="got 'runs'"):
        omniglot(tmp_path, "runs")
    with pytest.raises(DataError, match="name of a group, got 'Balinese'"):  # the small sets are alphabets
        omniglot(tmp_path, "small1")
    with pytest.raises(DataError, match="at least one pixel"):
        omniglot(tmp_path, size=0)
    with pytest.raises(DataError, match="got nothing there: download_omniglot"):
        omniglot(tmp_path / "nowhere.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"images_evaluation, images_evaluation\.zip, omniglot_evaluation\.npz, or"):
        omniglot(tmp_path / "empty", "evaluation")


def without(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in contents.items() if not name.endswith("0001_07.png")}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without, "20 drawings of every character, got 19 of Greek/character01"),
        (
            lambda c: c | {"images_background/Latin/character01/0002_05.png": png((0, 0), 28)},
            r"105 x 105 .*0002_05\.png",
        ),
        (lambda c: c | {"images_background/Latin/character01/0002_05.png": b"?"}, r"an image file, got .*0002_05\.png"),
        (
            lambda c: c | {"images_background/Latin/0002_05.png": png((0, 0))},
            r"got (images_background/)?Latin/0002_05\.png",
        ),
        (lambda c: {"readme.txt": b"nothing"}, "got none (in|of them)"),
    ],
    ids=["missing", "size", "broken", "place", "empty"],
)
def test_incomplete_or_wrong_files_are_named(
    tmp_path: Path, spoil: Callable[[dict[str, bytes]], dict[str, bytes]], message: str
) -> None:
    contents = spoil(drawings())
    for path in (zipped(tmp_path / "images.zip", contents), extracted(tmp_path / "images_background", contents)):
        with pytest.raises(DataError, match=message):
            omniglot(path)


def test_broken_zip_files_are_found_out(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "whole.zip", drawings()).read_bytes()
    assert omniglot(tmp_path / "whole.zip").num_classes == 3
    broken = tmp_path / "broken.zip"
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF  # inside the first drawing
    for content in (whole[: len(whole) // 2], b"", b"<html>404</html>", bytes(flipped)):
        broken.write_bytes(content)
        for read in (omniglot, omniglot_runs):
            with pytest.raises(DataError, match=r"expected a whole zip file, got .*broken\.zip: fetch it again"):
                read(broken)
    with pytest.raises(DataError, match="expected a zip file or folder at"):
        omniglot_runs(tmp_path / "nowhere.zip")


def arrays() -> dict[str, np.ndarray]:
    ink = np.zeros((4, 105, 105), dtype=np.uint8)
    ink[np.arange(4), np.arange(4), 7] = 1
    return {
        "x28": np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((28, 28), dtype=np.uint8),
        "x105_packed": np.packbits(ink.reshape(4, -1), axis=1),
        "label": np.array([2, 0, 1, 0], dtype=np.int16),
        "alphabet": np.array([1, 0, 0, 0], dtype=np.int8),
        "alphabet_names": np.array(["Greek", "Latin"]),
        "character_alphabet": np.array([0, 0, 1], dtype=np.int8),
        "character_names": np.array(["character01", "character02", "character01"]),
    }


def test_npz_files_hold_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "omniglot_background.npz", **arrays())
    for path in (tmp_path, tmp_path / "omniglot_background.npz"):
        images = omniglot(path)
        assert images.class_names == ("Greek/character01", "Greek/character02", "Latin/character01")
        assert images.labels.tolist() == [2, 0, 1, 0]
        assert images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
        assert images.groups is not None
        assert images.groups.tolist() == [0, 0, 1]
        assert images.makers is None
    np.savez(tmp_path / "drawn.npz", **arrays(), drawer=np.array([7, 1, 20, 7], dtype=np.int8))
    for size in (28, 14):
        makers = omniglot(tmp_path / "drawn.npz", size=size).makers
        assert makers is not None
        assert makers.tolist() == [1, 0, 2, 1]
    large = omniglot(tmp_path, size=105).images
    assert (large == 255).nonzero().tolist() == [[n, 0, n, 7] for n in range(4)]
    assert omniglot(tmp_path, size=14).shape == (1, 14, 14)
    kept = arrays()
    del kept["label"]
    np.savez(tmp_path / "part.npz", **kept)
    with pytest.raises(DataError, match=r"with the arrays of Omniglot, got .*label.* in .*part\.npz"):
        omniglot(tmp_path / "part.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "part.npz").read_bytes()[:500])
    with pytest.raises(DataError, match=r"an npz file of Omniglot, got .* in .*broken\.npz"):
        omniglot(tmp_path / "broken.npz")


# ------------------------------------------------------------------------------------------------------- one-shot runs


def runs(root: str = "") -> dict[str, bytes]:
    """Two runs: training image k has its ink in row k, and test item i, of class 7 i mod 20, in row 40 + i."""
    contents = {}
    for run in ("run01", "run02"):
        lines = []
        for i in range(1, 21):
            contents[f"{root}{run}/training/class{i:02d}.png"] = png((0, i))
            contents[f"{root}{run}/test/item{i:02d}.png"] = png((0, 40 + i))
            lines.append(f"{run}/test/item{i:02d}.png {run}/training/class{7 * i % 20 + 1:02d}.png")
        contents[f"{root}{run}/class_labels.txt"] = "\n".join(lines).encode()
    return contents


@pytest.mark.parametrize("root", ["", "all_runs/"])
def test_runs_are_tasks_of_training_then_test_images(tmp_path: Path, root: str) -> None:
    for path in (zipped(tmp_path / "all_runs.zip", runs(root)), extracted(tmp_path / "extracted", runs(root))):
        tasks = omniglot_runs(path, size=105)
        assert tasks.names == ("run01", "run02")
        assert tasks.data.x.shape == (2, 40, 1, 105, 105)
        rows = tasks.data.x.argmax(-2)[:, :, 0, 0]
        expected = [*range(1, 21), *range(41, 61)]
        assert rows.tolist() == [expected] * 2
        assert tasks.data.y[1].tolist() == [*range(20), *(7 * i % 20 for i in range(1, 21))]
    evaluation = evaluate(ClassShares(20), omniglot_runs(path), (20,), split=PrefixSplit)
    assert evaluation.table().loc[20, "points"] == 40


def test_incomplete_runs_are_named(tmp_path: Path) -> None:
    labels = "run02/class_labels.txt"
    for number, (contents, message) in enumerate(
        (
            ({k: v for k, v in runs().items() if k != "run01/test/item03.png"}, r"expected run01/test/item03\.png"),
            ({k: v for k, v in runs().items() if not k.endswith("txt")}, "expected runs with class_labels"),
            (runs() | {labels: runs()[labels][:-30]}, "20 lines 'test image, training image' in run02/class_labels"),
            (runs() | {"run02/test/item01.png": png((0, 0), 28)}, r"105 x 105 pixels, .*run02/test/item01\.png"),
        )
    ):
        with pytest.raises(DataError, match=message):
            omniglot_runs(zipped(tmp_path / f"{number}.zip", contents))


# ------------------------------------------------------------------------------------------------------------- fetching


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network on which every file is b"content", which is small1's checksum here; the addresses that were asked."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(b"content")

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    name = FILES["small1"][0]
    monkeypatch.setitem(FILES, "small1", (name, "sha256", hashlib.sha256(b"content").hexdigest()))
    return asked


def test_a_file_is_fetched_once_and_checked(tmp_path: Path, fetched: list[str]) -> None:
    path = download_omniglot(tmp_path / "new" / "folder", "small1")
    assert path == tmp_path / "new/folder/images_background_small1.zip"
    assert path.read_bytes() == b"content"
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary is left
    assert download_omniglot(path.parent, "small1") == path
    assert fetched == [
        "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_background_small1.zip"
    ]
    path.write_bytes(b"other")
    with pytest.raises(DataError, match=r"expected sha256 .*, got .* \(5 bytes\) for .*delete it"):
        download_omniglot(path.parent, "small1")
    assert path.read_bytes() == b"other"


@pytest.mark.parametrize("part", ["background", "evaluation", "small2", "runs"])
def test_what_is_not_the_official_file_is_not_kept(tmp_path: Path, fetched: list[str], part: str) -> None:
    with pytest.raises(DataError, match=r"expected (md5|sha256) .*\(7 bytes\) .*nothing was kept"):
        download_omniglot(tmp_path, part)
    assert list(tmp_path.iterdir()) == []
    assert fetched[0].endswith(FILES[part][0])


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        download_omniglot(tmp_path, "small1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.URLError("Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (http.client.IncompleteRead(b"half"), "IncompleteRead"),
        (urllib.error.HTTPError("https://x", 404, "Not Found", http.client.HTTPMessage(), None), "Not Found"),
    ],
)
def test_without_a_connection_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def urlopen(url: str, timeout: float) -> io.BytesIO:
        raise error

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    with pytest.raises(DataError, match=rf"images_evaluation\.zip, got {reason}.*bring the file to .*yourself"):
        download_omniglot(tmp_path, "evaluation")
    with pytest.raises(DataError, match="one of the parts"):
        download_omniglot(tmp_path, "all")


# ------------------------------------------------------------------------------------------------------------ real data


def find(real_data: Path, *names: str) -> Path:
    for name in names:
        if (real_data / "omniglot" / name).exists():
            return real_data / "omniglot" / name
    pytest.skip(f"BAYESMETA_DATA has no {names[0]}")


@pytest.mark.data
def test_the_background_set_has_its_published_size(real_data: Path) -> None:
    """Lake et al. 2015: 964 characters of 30 alphabets, 20 drawings of each."""
    images = omniglot(find(real_data, "omniglot_background.npz"))
    assert (images.num_classes, len(images.group_names), len(images.images)) == (964, 30, 19_280)
    assert images.counts.unique().tolist() == [20]
    assert images.rotated().num_classes == 3856
    assert torch.equal(images.labels * 20 + images.require_makers(), torch.arange(19_280))  # one image each, in order


@pytest.mark.data
@pytest.mark.parametrize("part", ["small1", "small2"])
def test_official_zip_files_are_the_same_pixel_by_pixel(real_data: Path, part: str) -> None:
    """The npz file was made by others with PIL's Lanczos filter: at 28 x 28 as at 105 x 105 nothing differs."""
    path = find(real_data, f"original/images_background_{part}.zip")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FILES[part][2]
    images, arrays = omniglot(path, part), omniglot(find(real_data, "omniglot_background.npz"), part)
    assert images.group_names == SMALL[part]
    assert torch.equal(images.images, arrays.images)
    assert torch.equal(images.labels, arrays.labels)
    assert torch.equal(images.require_makers(), arrays.require_makers())
    assert images.class_names == arrays.class_names


@pytest.mark.slow
@pytest.mark.data
def test_the_runs_have_the_published_error_of_the_hausdorff_distance(real_data: Path) -> None:
    """38.8 % is what the authors' demo_classification.py reports for the modified Hausdorff distance."""
    tasks = omniglot_runs(find(real_data, "original/all_runs.zip", "all_runs.zip"), size=105)
    assert len(tasks) == 20

    def ink(image: Tensor) -> np.ndarray:
        points = np.argwhere(image[0].numpy() > 0.5).astype(float)
        return points - points.mean(0)

    wrong = 0
    for x, y in zip(tasks.data.x, tasks.data.y, strict=True):
        points = [ink(image) for image in x]
        for test, label in zip(points[20:], y[20:].tolist(), strict=True):
            pairs = (cdist(test, train) for train in points[:20])
            wrong += int(np.argmin([max(d.min(0).mean(), d.min(1).mean()) for d in pairs]) != label)
    assert wrong / 400 == pytest.approx(0.388, abs=0.0006)  # published to one decimal of a per cent: 155 of 400
