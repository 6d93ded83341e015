"""Reading of MNIST, Fashion-MNIST and CIFAR, and what is said when they are missing."""

import gzip
import pickle
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

from greedypipe.workers.data.idx_files import LabelledArrays, read_idx_folder
from greedypipe.workers.data.sets import archives, interface
from greedypipe.workers.data.sets.archives import Archive, ArchiveConfig, Cifar10
from greedypipe.workers.data.sets.in_memory import InMemoryImages
from greedypipe.workers.data.sets.registry import SETS

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path, zipped: bool) -> Path:
    folder.mkdir(parents=True)
    for prefix, part in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        for stem, values in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            content = idx_bytes(values)
            name = f"{prefix}-{stem}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def archive(name: str, root: Path, **keys: object) -> Archive:
    return SETS[name](ArchiveConfig(name=name, root=str(root), **keys))


def arrays(part: InMemoryImages) -> LabelledArrays:
    return part.images.numpy(), part.labels.numpy()


def assert_is_written_idx(parts: tuple[LabelledArrays, LabelledArrays]) -> None:
    (train_images, train_labels), (test_images, test_labels) = parts
    assert np.array_equal(train_images[:, 0], IMAGES[:3]) and np.array_equal(test_images[:, 0], IMAGES[3:])
    assert train_labels.tolist() == [3, 1, 4] and test_labels.tolist() == [1, 5]
    assert train_labels.dtype == np.int64 and train_images.shape == (3, 1, 4, 3)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_zipped_and_plain(tmp_path: Path, zipped: bool) -> None:
    assert_is_written_idx(read_idx_folder(write_idx(tmp_path / "raw", zipped)))


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_found_where_torchvision_puts_them(tmp_path: Path, name: str, folder: str) -> None:
    write_idx(tmp_path / folder / "raw", zipped=False)
    train, test = archive(name, tmp_path, download=False).load()
    assert_is_written_idx((arrays(train), arrays(test)))


def test_the_debian_package_serves_fashion_mnist_and_not_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_idx(tmp_path / "package", zipped=True)
    monkeypatch.setattr(archives, "DEBIAN_FASHION_MNIST", package)
    assert archive("fashion_mnist", tmp_path).find() == package
    assert archive("mnist", tmp_path).find() is None


def test_three_of_four_idx_files_do_not_count_as_present(tmp_path: Path) -> None:
    (write_idx(tmp_path / "MNIST" / "raw", zipped=True) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert archive("mnist", tmp_path).find() is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>not found</html>", "no idx file"),
        (b"", "no idx file"),
        (idx_bytes(IMAGES[:3])[:-1], "its header says"),
        (idx_bytes(IMAGES[:2]), "do not belong together"),
    ],
)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    folder = write_idx(tmp_path / "raw", zipped=False)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as refusal:
        read_idx_folder(folder)
    assert str(folder) in str(refusal.value)


def test_a_truncated_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "raw", zipped=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        read_idx_folder(folder)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mnist", "MNIST/raw: set data.download=true"),
        ("fashion_mnist", "`apt-get install dataset-fashion-mnist`"),
        ("cifar10", "cifar-10-batches-py: set data.download=true"),
        ("cifar100", "cifar-100-python: set data.download=true"),
    ],
)
def test_missing_files_without_download_name_the_remedy_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, remedy: str
) -> None:
    monkeypatch.setattr(archives, "DEBIAN_FASHION_MNIST", tmp_path / "absent")
    with pytest.raises(ValueError) as refusal:
        archive(name, tmp_path, download=False).check_presence()
    assert remedy in str(refusal.value) and str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_torchvision_that_cannot_be_imported_is_explained_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ValueError, match="install torch and torchvision from the same index") as refusal:
        archive("cifar10", tmp_path).check_presence()
    assert "\n" not in str(refusal.value)


def test_a_torchvision_of_another_torch_build_is_explained_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(module: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nsecond line")

    monkeypatch.setattr(interface, "importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(ValueError, match="nms does not exist") as refusal:
        interface.require_torchvision("torchvision.datasets")
    assert "\n" not in str(refusal.value)


def test_missing_files_are_downloaded_to_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(root: str, download: bool) -> None:
        assert download
        write_idx(Path(root) / "MNIST" / "raw", zipped=True)

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=download))
    train, test = archive("mnist", tmp_path).load()
    assert_is_written_idx((arrays(train), arrays(test)))


def test_files_already_present_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "MNIST" / "raw", zipped=True)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    train, test = archive("mnist", tmp_path, download=True).load()
    assert_is_written_idx((arrays(train), arrays(test)))


def test_a_failed_download_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(root: str, download: bool) -> None:
        raise URLError("no route to host")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=download))
    with pytest.raises(ConnectionError, match=r"no route to host.*data\.name=digits"):
        archive("cifar10", tmp_path).load()


@pytest.fixture
def tiny_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10 files of two images each; returns the pixels of all six, training files first."""
    datasets = pytest.importorskip("torchvision.datasets")
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, None] for name in files[:-1]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[files[-1], None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "names", "md5": None})
    pixels = np.random.default_rng(1).integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(files):
        content = {"data": pixels[number].reshape(2, -1), "labels": [number, 9]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"names": list("abcdefghij")}))
    return pixels


def test_cifar10_is_read_with_channels_first(tmp_path: Path, tiny_cifar10: np.ndarray) -> None:
    train, test = archive("cifar10", tmp_path, download=False).load()
    assert np.array_equal(train.images, tiny_cifar10[:5].reshape(10, 3, 32, 32))
    assert np.array_equal(test.images, tiny_cifar10[5])
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and test.labels.tolist() == [5, 9]


def test_damaged_cifar10_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: str, train: bool) -> None:
        raise RuntimeError("Dataset not found or corrupted.")

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=read))
    monkeypatch.setattr(Cifar10, "find", lambda self: tmp_path / "cifar-10-batches-py")
    with pytest.raises(ValueError, match="cifar-10-batches-py is damaged: delete it"):
        archive("cifar10", tmp_path).load()
