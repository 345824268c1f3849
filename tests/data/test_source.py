"""Folders and zips: what is listed, how it is read from threads and forks, and paths that cannot be used."""

import os
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastgan.data.bad import BadImageError
from fastgan.data.source import DIGITS, ZipSource, open_source
from fastgan.errors import DataError

WriteData = Callable[..., str]


def random_files(num: int) -> dict[str, bytes]:
    return {f"{index:03}.png": os.urandom(2000 + 37 * index) for index in range(num)}


@pytest.mark.parametrize("to", ["images", "images.zip"])
def test_lists_images_below_the_root_sorted_by_path(write_data: WriteData, to: str) -> None:
    wanted = ["B.png", "a.JPG", "b.webp", "sub/d.jpeg", "sub/deep/c.bmp"]
    others = [".hidden.png", "._a.png", ".cache/x.png", "__MACOSX/a.png", "notes.txt", "sub/model.h5"]
    path = write_data(dict.fromkeys([*others, *reversed(wanted)], b"12345"), to=to)
    source = open_source(path)
    assert [entry.name for entry in source.entries] == wanted
    assert {entry.num_bytes for entry in source.entries} == {5}
    assert source.read("sub/d.jpeg") == b"12345"
    assert source.read_labels() is None


@pytest.mark.parametrize("to", ["images", "images.zip"])
def test_missing_image(write_data: WriteData, to: str) -> None:
    source = open_source(write_data({"a.png": b"1"}, to=to))
    with pytest.raises(BadImageError, match="missing"):
        source.read("b.png")


def test_digits_are_built_in() -> None:
    source = open_source(DIGITS)
    assert len(source.entries) == 5000
    assert source.read_labels() is not None


def test_folder_called_digits_needs_a_dot(write_data: WriteData, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_data({"a.png": b"1"}, to="digits")
    monkeypatch.chdir(Path(folder).parent)
    assert len(open_source("./digits").entries) == 1
    assert len(open_source("digits").entries) == 5000


def test_home_folder_is_expanded(write_data: WriteData, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_data({"a.png": b"1"})
    monkeypatch.setenv("HOME", str(Path(folder).parent))
    assert open_source("~/images").read("a.png") == b"1"


def test_threads_read_a_zip_at_once(write_data: WriteData) -> None:
    files = random_files(40)
    source = open_source(write_data(files, to="images.zip"))
    names = list(files) * 25
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(source.read, names))
    assert all(content == files[name] for name, content in zip(names, contents, strict=True))


def test_forked_process_reads_a_zip_beside_its_parent(write_data: WriteData) -> None:
    files = random_files(40)
    source = open_source(write_data(files, to="images.zip"))
    with warnings.catch_warnings():
        # Python warns of forks beside threads; this child uses none of the parent's.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    try:
        equal = all(source.read(name) == content for _ in range(25) for name, content in files.items())
    except BadImageError:
        equal = False
    if child == 0:
        os._exit(0 if equal else 1)
    _, status = os.waitpid(child, 0)
    assert equal
    assert status == 0


def test_each_thread_and_process_has_its_own_handle(write_data: WriteData, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ZipSource(write_data({"a.png": b"1"}, to="images.zip"))
    own = source._handle()
    assert source._handle() is own
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(source._handle).result() is not own
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert source._handle() is not own


def test_damaged_zip_member_is_a_bad_image(write_data: WriteData) -> None:
    path = Path(write_data({"a.png": b"A" * 50, "b.png": b"B"}, to="images.zip"))
    content = bytearray(path.read_bytes())
    content[content.index(b"a.png") + len("a.png") + 1] ^= 0xFF
    path.write_bytes(content)
    source = open_source(str(path))
    with pytest.raises(BadImageError):
        source.read("a.png")
    assert source.read("b.png") == b"B"


def test_zip_that_disappears(write_data: WriteData) -> None:
    path = write_data({"a.png": b"1"}, to="images.zip")
    source = open_source(path)
    os.remove(path)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DataError) as caught:
        pool.submit(source.read, "a.png").result()
    assert str(caught.value) == f"data.path={path} can no longer be read: the file is missing"


def refusal(path: str) -> str:
    with pytest.raises(DataError) as caught:
        open_source(path)
    return str(caught.value)


def test_path_that_does_not_exist(write_data: WriteData, tmp_path: Path) -> None:
    write_data({"a.png": b"1"}, to="flowers")
    choices = "give a folder of images, a .zip of images, or digits"
    assert (
        refusal(f"{tmp_path}/flower")
        == f"data.path={tmp_path}/flower does not exist, did you mean 'flowers'? {choices}"
    )
    assert refusal(f"{tmp_path}/xyz") == f"data.path={tmp_path}/xyz does not exist; {choices}"
    assert refusal(f"{tmp_path}/no/where") == f"data.path={tmp_path}/no/where does not exist; {choices}"
    assert refusal("digit") == f"data.path=digit does not exist, did you mean 'digits'? {choices}"


def test_file_that_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"not a zip")
    assert refusal(str(path)) == (
        f"data.path={path} is neither a folder nor a readable zip file (File is not a zip file); "
        "give a folder of images, a .zip of images, or digits"
    )


def test_nothing_inside(tmp_path: Path) -> None:
    suffixes = "images end in .png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff, .ppm, .pgm"
    folder = tmp_path / "empty"
    folder.mkdir()
    assert refusal(str(folder)) == f"data.path={folder} holds no image: found nothing; {suffixes}"
    (folder / "b.txt").touch()
    (folder / "a.zip").touch()
    assert refusal(str(folder)) == f"data.path={folder} holds no image: found 2 other files, e.g. 'a.zip'; {suffixes}"
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.mkdir("folder.png")
    assert refusal(str(empty)) == f"data.path={empty} holds no image: found nothing; {suffixes}"


def test_folder_that_cannot_be_listed(write_data: WriteData, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_data({"a.png": b"1"})

    def refuse(folder: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(path) == f"{path} cannot be listed: Permission denied; check its permissions"


def test_a_pipe_is_a_bad_image_and_is_not_waited_for(write_data: WriteData) -> None:
    path = write_data({"a.png": b"1"})
    os.mkfifo(Path(path, "b.png"))
    with pytest.raises(BadImageError, match="it is not a regular file"):
        open_source(path).read("b.png")


def test_a_zip_member_that_claims_to_be_huge_is_not_unpacked(
    write_data: WriteData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgan.data.source.MAX_ENCODED_BYTES", 1 << 20)
    source = open_source(write_data({"a.png": bytes((1 << 20) + 1), "b.png": bytes(1 << 20)}, to="images.zip"))
    with pytest.raises(BadImageError, match="it unpacks to more than 1 MiB"):
        source.read("a.png")
    assert len(source.read("b.png")) == 1 << 20


def test_a_user_without_a_home_folder() -> None:
    with pytest.raises(DataError, match=r"^data\.path=~no-such-user/x names a user without a home folder"):
        open_source("~no-such-user/x")
