"""What every spool must do, over memory and over files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from agent_engines.adapters.file_spool import FileSpool
from agent_engines.adapters.memory.spool import MemorySpool, Shelf
from agent_engines.domain.messages import Report, ReportKind
from agent_engines.domain.tasks import TaskError, TaskStatus
from agent_engines.ports.spool import Orphan, Spooled

AnySpool = MemorySpool | FileSpool


@dataclass
class Machine:
    """Makes the spools of replicas that live on one machine."""

    kind: str
    folder: Path
    shelf: Shelf = field(default_factory=Shelf)
    spools: list[AnySpool] = field(default_factory=list)

    def replica(self, *, max_reports: int = 100) -> AnySpool:
        if self.kind == "memory":
            spool: AnySpool = MemorySpool(self.shelf, max_reports=max_reports)
        else:
            spool = FileSpool(self.folder / "spool", "worker", max_reports=max_reports)
        self.spools.append(spool)
        return spool


@pytest.fixture(params=["memory", "file"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(request.param, tmp_path)
    yield machine
    for spool in machine.spools:
        await spool.close()


def kept(task_id: str, *, result: bytes = b'{"n":1}') -> Spooled:
    report = Report(
        kind=ReportKind.FINAL,
        task_id=task_id,
        request_id=f"r-{task_id}",
        task_type="work",
        agent="worker",
        status=TaskStatus.SUCCESS,
        result=msgspec.Raw(result),
        error=TaskError("None", "zażółć \x00 \n"),
        quality=0.5,
    )
    return Spooled(report, b"$JS.ACK.\x00\xff." + task_id.encode())


async def everything(orphan: Orphan) -> list[tuple[Spooled, ...]]:
    groups: list[tuple[Spooled, ...]] = []
    while (group := await orphan.read()) is not None:
        groups.append(group)
    return groups


async def test_what_was_kept_is_read_back_in_its_groups(machine: Machine) -> None:
    spool = machine.replica()
    first, second = [kept("t1"), kept("t2")], [kept("t3", result=b"null")]
    assert await spool.keep(first)
    assert await spool.keep(second)
    await spool.close()
    (orphan,) = await machine.replica().orphans()
    assert await everything(orphan) == [tuple(first), tuple(second)]


async def test_a_living_replicas_spool_is_nobody_elses(machine: Machine) -> None:
    spool = machine.replica()
    await spool.keep([kept("t1")])
    assert await machine.replica().orphans() == []
    assert await spool.orphans() == []


async def test_only_one_has_a_dead_replicas_spool(machine: Machine) -> None:
    spool = machine.replica()
    await spool.keep([kept("t1")])
    await spool.close()
    (orphan,) = await machine.replica().orphans()
    assert await machine.replica().orphans() == []
    await orphan.leave()
    (again,) = await machine.replica().orphans()
    assert await everything(again) == [(kept("t1"),)]
    await again.remove()
    assert await machine.replica().orphans() == []


async def test_what_was_cleared_is_gone_and_there_is_room_again(machine: Machine) -> None:
    spool = machine.replica(max_reports=2)
    assert await spool.keep([kept("t1"), kept("t2")])
    assert not await spool.keep([kept("t3")])
    await spool.clear()
    assert await spool.keep([kept("t4")])
    await spool.close()
    await spool.close()
    (orphan,) = await machine.replica().orphans()
    assert await everything(orphan) == [(kept("t4"),)]


async def test_a_group_that_does_not_fit_is_not_there_in_part(machine: Machine) -> None:
    spool = machine.replica(max_reports=2)
    assert await spool.keep([kept("t1")])
    assert not await spool.keep([kept("t2"), kept("t3")])
    await spool.close()
    (orphan,) = await machine.replica().orphans()
    assert await everything(orphan) == [(kept("t1"),)]


async def test_clearing_what_was_never_used_is_no_error(machine: Machine) -> None:
    spool = machine.replica()
    await spool.clear()
    await spool.close()
    assert await machine.replica().orphans() == []
