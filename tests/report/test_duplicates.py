from __future__ import annotations

from html.parser import HTMLParser

from pycurate.report import manifest as records
from pycurate.report.duplicates import duplicates_section

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)> & more"


def row(uid: int, value: float | None = None, shard: str = "s", **facts: str) -> records.ExampleRow:
    return records.ExampleRow(uid=f"{uid:032x}", shard=shard, row=uid if shard else -1, value=value, **facts)


def make_record(**changes: int) -> records.GroupsRecord:
    sizes = (records.GroupSizeRecord(low=2, high=3, groups=900), records.GroupSizeRecord(low=1024, high=2047, groups=1))
    facts = {"groups": 901, "dropped": 2500, "largest": 1500} | changes
    step = records.DuplicatesRecord(step="same", sizes=sizes if facts["groups"] else (), **facts)
    return records.GroupsRecord(path="groups.parquet", rows=3401, steps=(step,))


def make_group(choice: records.GroupChoice = "largest", value: float = 1.0, **facts: str) -> records.DuplicateGroup:
    return records.DuplicateGroup(
        step="same", choice=choice, size=1500, keeper=row(1, **facts), rows=(row(2, value, **facts), row(3, value))
    )


def tags_of(page: str) -> list[str]:
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)

    Tags().feed(page)
    return found


def test_a_run_without_such_a_step_has_no_section() -> None:
    assert duplicates_section(None, ()) == ""


def test_the_section_says_how_many_how_large_and_shows_rows() -> None:
    page = duplicates_section(make_record(), (make_group(caption="a red boat", image="AAAA"),))
    for said in (
        "2,500 rows dropped",
        "of 901 groups; the largest has 1,500 rows",
        "1,024–2,047",
        "groups.parquet</code> (3,401 rows)",
        "Largest groups",
        "and 1,497 more",
        "a red boat",
        "dropped</span> · 1",
    ):
        assert said in page
    assert page.count('<img src="data:image/jpeg;base64,AAAA" alt="" width="112" height="112">') == 2
    assert page.count('<span class="no-image">no picture</span>') == 1  # of the row without one
    assert "least similar" not in page


def test_without_pictures_there_is_no_place_for_them() -> None:
    page = duplicates_section(make_record(), (make_group(caption="a"),))
    assert "no-image" not in page


def test_other_groups_are_named_by_how_they_were_chosen() -> None:
    assert "Other groups, by uid" in duplicates_section(make_record(), (make_group("least similar"),))
    page = duplicates_section(make_record(), (make_group("least similar", 0.912345),))
    assert "Groups with the least similar rows" in page
    assert "dropped</span> · 0.9123" in page


def test_a_step_that_found_nothing_says_so() -> None:
    page = duplicates_section(make_record(groups=0, dropped=0, largest=0), ())
    assert "No row duplicates another." in page


def test_a_keeper_from_elsewhere_says_so() -> None:
    group = make_group().model_copy(update={"keeper": row(9, shard="")})
    assert "not in this pool" in duplicates_section(make_record(), (group,))


def test_hostile_captions_and_names_stay_text() -> None:
    record = make_record()
    step = record.steps[0].model_copy(update={"step": HOSTILE})
    group = make_group(caption=HOSTILE, image_note=HOSTILE).model_copy(update={"step": HOSTILE})
    page = duplicates_section(record.model_copy(update={"steps": (step,), "path": HOSTILE}), (group,))
    assert "script" not in tags_of(page)
    assert "img" not in tags_of(page)
    assert "alert(&#x27;x&#x27;)" in page
