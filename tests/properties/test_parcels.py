"""Ids by neighbours: none is lost, none comes twice, and a million weigh little."""

from __future__ import annotations

import tracemalloc
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_engines.client import parcels as parcels_module
from agent_engines.client.parcels import SLOTS, Parcels

# Two that meet in a slot are found with their neighbours only; which do differs from process to process.
NAMES = list({hash(f"t{number}") % SLOTS: f"t{number}" for number in range(60)}.values())
numbers = st.integers(0, 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(numbers, max_size=12), st.just(0)),
        st.tuples(st.just("take"), st.lists(numbers, min_size=1, max_size=6), st.integers(0, 12)),
    ),
    max_size=40,
)


@given(steps)
def test_what_was_added_is_taken_once(steps: list[tuple[str, list[int], int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parcels_module, "PARCEL", 5)
        parcels, inside = Parcels(), set[str]()
        for what, given_numbers, room in steps:
            ids = [NAMES[number] for number in dict.fromkeys(given_numbers)]
            if what == "add":
                new = [one for one in ids if one not in inside]
                parcels.add(new)
                inside.update(new)
            else:
                known = inside.intersection(ids)
                beside = parcels.take(ids, room)
                inside -= known
                assert len(beside) == len(set(beside)) <= room
                assert inside.issuperset(beside)
                assert known or not beside
                inside.difference_update(beside)
        assert {
            one for one in sorted(inside) for other in [parcels.take([one], 100)] for one in (one, *other)
        } == inside


@given(st.integers(1, 200), st.integers(0, 199), st.integers(0, 60))
def test_the_next_ones_come_first(count: int, at: int, room: int) -> None:
    parcels = Parcels()
    parcels.add(f"t{number}" for number in range(count))
    order = [*range(at % count + 1, count), *range(at % count)]
    assert parcels.take([f"t{at % count}"], room) == [f"t{number}" for number in order[:room]]


def test_a_name_that_is_part_of_another_is_not_that_one() -> None:
    parcels = Parcels()
    parcels.add(f"t{number}" for number in range(10, 10 + parcels_module.PARCEL))
    assert parcels.take(["t1"], 100) == []
    assert len(parcels.take(["t10"], 1000)) == parcels_module.PARCEL - 1


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels_module, "MOST_PARCELS", 2)
    parcels = Parcels()
    parcels.add(f"t{number}" for number in range(1999))
    assert parcels.take(["t497", "t498", "t499"], 1000) == []
    assert len(parcels.take(["t500", "t501", "t502"], 1000)) == 497


def test_an_id_weighs_forty_bytes_and_the_slots_of_all_eight_mib() -> None:
    parcels = Parcels()
    tracemalloc.start()
    parcels.add(str(UUID(int=number << 64)) for number in range(100_000))
    weight, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert weight < 100_000 * 40 + 8 * 1024 * 1024


def test_where_ids_meet_in_a_slot_none_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels_module, "SLOTS", 64)
    parcels = Parcels()
    names = [f"t{number}" for number in range(20 * parcels_module.PARCEL)]
    parcels.add(names)
    found = [one for name in names for one in parcels.take([name], 1000)]
    assert found
    assert len(found) == len(set(found))
    assert set(names).issuperset(found)
