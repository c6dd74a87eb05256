"""What is no regular file, or larger than anything of ours: an error at once, and no more memory than a file says."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_files import weights_file
from helpers import complains, net

from mi2p_inject import load
from mi2p_inject.checkpoint.schema import CONFIG_NAME
from mi2p_inject.core.errors import CheckpointError


def replace(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(2**42)
    else:
        targets = {"/dev/zero": "/dev/zero", "/dev/tty": "/dev/tty", "loop": path.name, "dangling": "nowhere"}
        path.symlink_to(targets[kind])


@pytest.mark.parametrize("which", ["config", "weights"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "sparse", "/dev/zero", "/dev/tty", "loop", "dangling"])
@pytest.mark.fault("files", "a named pipe, a device, a folder or 4 TB in place of a file", "CheckpointError at once")
def test_no_regular_file(folder: Path, which: str, kind: str) -> None:
    replace(folder / CONFIG_NAME if which == "config" else weights_file(folder), kind)
    with complains(CheckpointError):
        load(folder, backbone=net())


def test_links_as_in_the_cache_of_the_hub(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blobs = tmp_path_factory.mktemp("blobs")
    for number, path in enumerate(list(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    load(folder, backbone=net())


def test_saving_does_not_write_through_a_link(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from helpers import expanded

    mine = tmp_path_factory.mktemp("mine") / "notes"
    mine.write_text("keep")
    (folder / CONFIG_NAME).unlink()
    (folder / CONFIG_NAME).symlink_to(mine)
    expanded().save_pretrained(folder)
    assert mine.read_text() == "keep"
    load(folder, backbone=net())


@pytest.mark.fault("files", "a header that promises more than the file holds", "CheckpointError; no memory is taken")
def test_no_more_memory_than_the_file_says(folder: Path) -> None:
    """In a process that may have 1 GB more than it needs for a load."""
    path = weights_file(folder)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    size = 2**36
    promised = {**header, "x": {"dtype": "U8", "shape": [size], "data_offsets": [len(content), len(content) + size]}}
    text = json.dumps(promised).encode()
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from pathlib import Path
from helpers import net
from mi2p_inject import load
from mi2p_inject.core.errors import CheckpointError
folder, path = Path({str(folder)!r}), Path({str(path)!r})
load(folder, backbone=net()).eject()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
content = path.read_bytes()
text = {text!r}
promised = len(text).to_bytes(8, "little") + text + content[{8 + length}:]
for data in (promised, (2**62).to_bytes(8, "little") + content[8:]):
    path.write_bytes(data)
    try:
        load(folder, backbone=net())
    except CheckpointError as error:
        print(error)
    else:
        raise SystemExit("loaded")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("damaged") == 2
