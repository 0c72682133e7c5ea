"""Feedback over HTTP, from the client and from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_engines.cli import main
from agent_engines.client import SyncClient
from agent_engines.domain.errors import Conflict, InvalidRequest, NotFound
from api_house import UNKNOWN, House, HouseThread, house_fixture

house = house_fixture()


async def judge(house: House, task_id: str, **body: Any) -> Any:
    return await house.http.post(f"/v1/tasks/{task_id}/feedback", json=body)


@pytest.mark.asyncio(loop_scope="module")
class TestRoutes:
    async def test_ended_work_is_judged_once_for_each_source(self, house: House) -> None:
        done = await house.ended("echo", {"n": 1})
        first = await judge(house, done["task_id"], quality=0.8, source="reviewer", comment="nearly")
        assert first.status_code == 200, first.text
        body = first.json()
        assert (body["quality"], body["source"], body["comment"]) == (0.8, "reviewer", "nearly")
        assert (body["agent"], body["task_type"], body["status"]) == ("worker-1", "echo", "success")
        assert body["created_at"].endswith("Z")
        again = await judge(house, done["task_id"].upper(), quality=0.8, source="reviewer")
        assert (again.status_code, again.json()) == (200, body)
        other = await judge(house, done["task_id"], quality=0.7, source="reviewer")
        assert other.status_code == 409
        assert "another source" in other.json()["detail"]
        assert (await judge(house, done["task_id"], quality=1)).json()["source"] == "caller"
        listed = (await house.http.get(f"/v1/tasks/{done['task_id']}/feedback")).json()
        assert [one["source"] for one in listed["items"]] == ["reviewer", "caller"]

    async def test_a_task_that_runs_is_not_judged(self, house: House) -> None:
        task_id = await house.held()
        assert (await judge(house, task_id, quality=1)).status_code == 409
        assert (await house.http.get(f"/v1/tasks/{task_id}/feedback")).json() == {"items": [], "next_cursor": None}
        house.release.set()

    async def test_a_task_nobody_knows_is_not_found(self, house: House) -> None:
        assert (await judge(house, UNKNOWN, quality=1)).status_code == 404
        assert (await house.http.get(f"/v1/tasks/{UNKNOWN}/feedback")).status_code == 404

    @pytest.mark.parametrize("quality", ["NaN", "-Infinity", "1.01", "-0.01", '"0.5"', "true", "null", "1e400"])
    async def test_a_quality_that_is_none_names_its_field(self, house: House, quality: str) -> None:
        done = await house.ended("echo")
        answer = await house.http.post(
            f"/v1/tasks/{done['task_id']}/feedback",
            content=f'{{"quality": {quality}}}',
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "quality"), answer.text

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"quality": 1, "source": ""}, "source"),
            ({"quality": 1, "source": "a\tb"}, "source"),
            ({"quality": 1, "comment": "x" * 2001}, "comment"),
            ({"quality": 1, "comment": "\0"}, "comment"),
            ({"quality": 1, "grade": "A"}, "grade"),
            ({}, "quality"),
        ],
    )
    async def test_a_wrong_field_names_itself(self, house: House, body: dict[str, Any], field: str) -> None:
        done = await house.ended("echo")
        answer = await judge(house, done["task_id"], **body)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text

    async def test_no_json_is_malformed(self, house: House) -> None:
        done = await house.ended("echo")
        answer = await house.http.post(
            f"/v1/tasks/{done['task_id']}/feedback", content="{", headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400


def test_the_client_and_the_command_line_judge_too(capsys: pytest.CaptureFixture[str]) -> None:
    with HouseThread() as house, SyncClient(house.url) as client:
        handle = client.submit("echo", {"n": 1})
        handle.result(20)
        assert client.feedback(handle.task_id, 0.5, source="script")["quality"] == 0.5
        with pytest.raises(Conflict):
            client.feedback(handle.task_id, 0.6, source="script")
        with pytest.raises(InvalidRequest):
            client.feedback(handle.task_id, float("nan"))
        with pytest.raises(NotFound):
            client.feedback(UNKNOWN, 1.0)
        assert main(["tasks", "feedback", handle.task_id, "--quality", "0.8", "--json", "--url", house.url]) == 0
        assert json.loads(capsys.readouterr().out)["source"] == "caller"
        assert main(["tasks", "feedback", handle.task_id, "--quality", "0.7", "--url", house.url]) == 1
        assert "another source" in capsys.readouterr().err
