"""The spool's files: torn, damaged, refused, and gone with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.adapters.file_spool import FileSpool, _LockedFile
from agent_engines.domain.errors import InvalidRequest, Unavailable
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskStatus
from agent_engines.ports.spool import Orphan, Spooled


def kept(task_id: str, size: int = 4) -> Spooled:
    return Spooled(
        Report(
            kind=ReportKind.FINAL,
            task_id=task_id,
            request_id=task_id,
            task_type="work",
            agent="worker",
            status=TaskStatus.SUCCESS,
            result=msgspec.Raw(b'"' + b"x" * size + b'"'),
        )
    )


async def names(orphan: Orphan) -> list[str]:
    found: list[str] = []
    while (group := await orphan.read()) is not None:
        found.extend(one.report.task_id for one in group)
    return found


async def written(folder: Path, *task_ids: str) -> Path:
    """A dead replica's file, one group for each task."""
    spool = FileSpool(folder, "worker")
    for task_id in task_ids:
        assert await spool.keep([kept(task_id)])
    await spool.close()
    (path,) = folder.glob("*.spool")
    return path


async def test_nothing_is_made_before_the_first_report_is_kept(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "deep" / "spool", "worker")
    assert await spool.orphans() == []
    await spool.clear()
    await spool.close()
    assert list(tmp_path.iterdir()) == []


async def test_the_file_and_its_folder_are_private_and_the_file_goes_when_cleared(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "spool", "worker")
    await spool.keep([kept("t1")])
    (path,) = (tmp_path / "spool").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    await spool.clear()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_every_torn_tail_costs_only_the_group_that_was_being_written(tmp_path: Path) -> None:
    path = await written(tmp_path, "t1", "t2", "t3")
    whole = path.read_bytes()
    first_two = len(whole) * 2 // 3
    for length in range(first_two, len(whole)):
        path.write_bytes(whole[:length])
        (orphan,) = await FileSpool(tmp_path, "worker").orphans()
        assert await names(orphan) == ["t1", "t2"], length
        await orphan.leave()


@settings(max_examples=60)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
async def test_a_flipped_bit_never_becomes_a_report_that_was_not_kept(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    path = await written(folder, "t1", "t2", "t3")
    content = bytearray(path.read_bytes())
    at = place % len(content)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    (orphan,) = await FileSpool(folder, "worker").orphans()
    group = at // (len(content) // 3)
    assert await names(orphan) == ["t1", "t2", "t3"][:group]
    await orphan.remove()


async def test_other_agents_spools_are_not_adopted(tmp_path: Path) -> None:
    await written(tmp_path, "t1")
    assert await FileSpool(tmp_path, "work").orphans() == []
    with pytest.raises(InvalidRequest):
        FileSpool(tmp_path, "../worker")


async def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, "worker", max_bytes=2_000)
    assert await spool.keep([kept("t1", 1_000)])
    assert not await spool.keep([kept("t2", 1_000)])
    assert await spool.keep([kept("t3")])
    await spool.close()


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = FileSpool(tmp_path / "file" / "spool", "worker")
    with pytest.raises(Unavailable, match="the spool cannot be used"):
        await spool.keep([kept("t1")])
    assert await spool.orphans() == []
    await spool.close()


async def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = FileSpool(tmp_path, "worker")
    await spool.keep([kept("t1")])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            await spool.keep([kept("t2")])
    assert await spool.keep([kept("t3")])
    await spool.close()
    (orphan,) = await FileSpool(tmp_path, "worker").orphans()
    assert await names(orphan) == ["t1", "t3"]


async def test_a_file_removed_by_whoever_adopted_it_is_not_locked_again(tmp_path: Path) -> None:
    path = await written(tmp_path, "t1")
    late = os.open(path, os.O_RDWR)
    (orphan,) = await FileSpool(tmp_path, "worker").orphans()
    await orphan.remove()
    assert os.fstat(late).st_nlink == 0
    assert _LockedFile.of_the_dead(path) is None
    os.close(late)


async def test_a_killed_process_leaves_what_it_kept(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_file_spool import FileSpool, kept
async def main():
    spool = FileSpool(Path({str(tmp_path)!r}), "worker")
    await spool.keep([kept("t1"), kept("t2")])
    print("kept", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
        assert await FileSpool(tmp_path, "worker").orphans() == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    (orphan,) = await FileSpool(tmp_path, "worker").orphans()
    assert await names(orphan) == ["t1", "t2"]
    await orphan.leave()


async def test_no_thread_is_left(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, "worker")
    await spool.keep([kept("t1")])
    await spool.close()
    for thread in threading.enumerate():
        if thread.name == "spool":
            thread.join(30)
    assert "spool" not in [thread.name for thread in threading.enumerate()]
