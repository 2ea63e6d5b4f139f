"""Where a user's files are kept, and that they are written whole."""

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from kdlib import _files

FOLDERS = {"XDG_CACHE_HOME": _files.cache_folder, "XDG_DATA_HOME": _files.data_folder}


def test_a_user_has_one_folder_for_caches_and_one_for_data(monkeypatch, tmp_path):
    for variable, folder in FOLDERS.items():
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert folder() == tmp_path / variable / "kdlib"


def test_on_windows_no_folder_has_a_second_one_of_its_name(monkeypatch):
    """As platformdirs makes it there: the author's folder around the application's."""

    def on_windows(name, appauthor=None):
        author = name if appauthor is None else appauthor
        return Path("/", "AppData", "Local", *([author] if author else []), name)

    for name, folder in (("user_cache_path", _files.cache_folder), ("user_data_path", _files.data_folder)):
        monkeypatch.setattr(platformdirs, name, on_windows)
        assert folder() == Path("/AppData/Local/kdlib")


def test_a_user_without_a_home_folder_has_none(monkeypatch):
    def refuse(error):
        raise error

    for answer in (
        lambda *_, **__: refuse(RuntimeError("could not determine the home directory")),
        lambda *_, **__: refuse(KeyError("getpwuid(): uid not found: 12345")),
        lambda *_, **__: Path("~/.cache/kdlib"),
    ):
        for name, folder in (
            ("user_cache_path", _files.cache_folder),
            ("user_data_path", _files.data_folder),
        ):
            monkeypatch.setattr(platformdirs, name, answer)
            assert folder() is None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become a user without a name"
)
def test_a_user_without_a_name_has_none_in_a_process_of_its_own(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "HOME"))}
    code = (
        "import os, pwd, platformdirs; from kdlib import _files; os.setuid(12345); "
        "print(_files.cache_folder(), _files.data_folder())"
    )
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert process.stdout == "None None\n", process.stderr


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path):
    path = tmp_path / "new" / "file"
    assert _files.write(path, b"first") == path

    def break_off(file):
        file.write(b"half of the sec")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _files.write(path, break_off)
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]
    _files.write(path, lambda file: file.write(b"second"))
    assert path.read_bytes() == b"second"
