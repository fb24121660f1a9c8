from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pycurate.errors import InputError
from pycurate.report import manifest as records
from pycurate.report import read_examples, read_manifest, render_report, render_summary, write_report
from pycurate.report.charts import BASE, LEFT, RIGHT, funnel_segments, histogram_chart
from pycurate.report.formats import format_bytes, format_seconds, format_share, format_value

HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)> & more"


def make_manifest(**changes):
    unjudged = records.RuleRecord(
        name="quality.unjudged", description="clip_l14 is NaN", unjudged=True, dropped=5, policy="drop"
    )
    rules = (
        records.RuleRecord(
            name="quality", description="clip_l14 >= 0.25", score="clip_l14", threshold=0.25, dropped=25, drops="below"
        ),
        unjudged,
    )
    language = records.RuleRecord(name="language", description="language is one of en", dropped=30)
    fields = {
        "pycurate": "0.1.0",
        "created": "2025-01-02T03:04:05+00:00",
        "recipe": records.RecipeRecord(name="trial", description="why", yaml="name: trial\nsteps: []\n", hash="c0ffee"),
        "pool": records.PoolRecord(
            root="pool", layout="datacomp", shards=2, rows=100, uid_source="column", fingerprint="feed"
        ),
        "counts": records.Counts(rows=100, kept=40, dropped=60, unjudged=5),
        "steps": (
            records.StepRecord(name="clip_l14", kind="clip_score", entering=100, kept=100),
            records.StepRecord(name="language", kind="language", entering=100, rules=(language,), kept=70),
            records.StepRecord(name="quality", kind="threshold", entering=70, rules=rules, kept=40),
        ),
        "scores": (
            records.ScoreRecord(
                name="clip_l14",
                count=95,
                missing=5,
                minimum=0.0,
                maximum=0.5,
                mean=0.24,
                histogram=records.HistogramRecord(edges=(0.0, 0.125, 0.25, 0.375, 0.5), counts=(5, 40, 40, 10)),
                thresholds=(0.25,),
            ),
        ),
        "unjudged": (
            records.UnjudgedRecord(
                rule="quality.unjudged",
                reason="image embedding is not finite",
                count=5,
                policy="drop",
                first=records.FirstPlace(shard="shard-a", row=17),
            ),
        ),
        "stages": (records.StageRecord(name="scan", seconds=65.0, rows=100, bytes=2_500_000, reused=1),),
        "memory": records.MemoryRecord(cap_bytes=2_000_000_000, peak_bytes=500_000_000, workers=2),
        "environment": records.EnvironmentRecord(
            python="3.11.9", numpy="2.1.0", pyarrow="17.0.0", duckdb="1.2.0", isa="avx2", threads=2, platform="Linux"
        ),
        "subset": records.SubsetRecord(path="subset.npy", rows=40, sha256="ab" * 32),
    }
    return records.Manifest(**(fields | changes))


def make_examples(caption="a red boat", url="https://pictures.example/1.jpg", **row):
    def group(rule, side, value):
        shown = records.ExampleRow(uid="0" * 32, shard="s", row=1, value=value, caption=caption, url=url, **row)
        return records.ExampleGroup(rule=rule, side=side, rows=(shown,))

    return records.Examples(
        groups=(group("quality", "above", 0.25), group("quality", "below", 0.2499), group("language", "below", None))
    )


class Page(HTMLParser):
    """Tags, attributes and the text between tags, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(page)
        self.close()
        self.tags = [tag for tag, _ in self.elements]
        self.attributes = [pair for _, attributes in self.elements for pair in attributes]
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, attrs))
        if tag not in {"meta", "img", "rect", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data.split()


def test_the_page_says_what_was_kept_and_why():
    page = Page(render_report(make_manifest(), make_examples()))
    said = """trial | 40 kept | 40.0 % | language is one of en | clip_l14 >= 0.25 | policy: drop | 0.2499 | a red boat
    At or just above 0.25: passed | Just below 0.25: dropped | https://pictures.example/1.jpg | row 17 of shard-a | 2 GB
    image embedding is not finite | 1 min 05 s | 500 MB | avx2 | name: trial steps: [] | c0ffee | feed
    scores 100 rows, drops none"""
    for words in said.replace("\n", "|").split("|"):
        assert words.strip() in page.text
    assert page.open == []


def test_sides_are_named_by_what_the_rule_drops():
    manifest = make_manifest()
    rule = manifest.steps[2].rules[0].model_copy(update={"drops": "above", "threshold": 3.0})
    frequent = rule.model_copy(update={"name": "frequency", "score": None})
    step = manifest.steps[2].model_copy(update={"rules": (rule, frequent)})
    rows = [records.ExampleRow(uid="0", shard="s", row=1, value=value) for value in (3.0, 3.5)]
    groups = (
        records.ExampleGroup(rule="quality", side="below", rows=rows[:1]),
        records.ExampleGroup(rule="quality", side="above", rows=rows[1:]),
        records.ExampleGroup(rule="frequency", side="above", rows=rows[1:]),
    )
    text = Page(render_report(make_manifest(steps=(step,)), records.Examples(groups=groups))).text
    assert "Just above 3: dropped 3.5" in text.replace("no picture no caption ", "")
    assert "At or just below 3: passed 3 0" in text.replace("no picture no caption ", "")
    assert "Dropped 3.5" in text.replace("no picture no caption ", "")  # counted, not nearest: no side to name


def test_an_unjudged_rule_without_rows_takes_no_place_and_others_keep_their_colour():
    manifest = make_manifest()
    rules = (manifest.steps[2].rules[1].model_copy(update={"dropped": 0}), manifest.steps[2].rules[0])
    step = manifest.steps[2].model_copy(update={"rules": rules})
    page = render_report(make_manifest(steps=(step,), unjudged=()))
    assert "policy: drop" not in page
    assert 'class="swatch tone1"' in page.split("<table")[1]
    assert '<rect class="tone1"' in page


def test_the_page_is_self_contained_and_runs_nothing():
    page = Page(render_report(make_manifest(), make_examples(image="QUJD")))
    assert not {"script", "link", "iframe", "object", "a", "form"} & set(page.tags)
    assert [value for name, value in page.attributes if name == "src"] == ["data:image/jpeg;base64,QUJD"] * 3
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_hostile_captions_links_and_names_stay_text():
    manifest = make_manifest(
        recipe=records.RecipeRecord(
            name=f"</title>{HOSTILE}", description=HOSTILE, yaml=f"</pre>{HOSTILE}", hash=HOSTILE
        ),
        pool=records.PoolRecord(root=HOSTILE, layout=HOSTILE, shards=1, rows=1, uid_source="path", fingerprint=HOSTILE),
        scores=tuple(score.model_copy(update={"name": HOSTILE}) for score in make_manifest().scores),
    )
    examples = make_examples(caption=HOSTILE, url="javascript:alert(1)", image='"><script>', image_note=HOSTILE)
    page = Page(render_report(manifest, examples))
    assert not {"script", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert [value for name, value in page.attributes if name == "src" and not value.startswith("data:image/")] == []
    assert "javascript:alert(1)" in page.text
    assert HOSTILE in page.text


def test_captions_and_pictures_that_are_missing_say_so():
    page = Page(render_report(make_manifest(), make_examples(caption=None, url=None, image_note="unreadable picture")))
    assert "no caption" in page.text
    assert "unreadable picture" in page.text


def test_ids_and_labels_belong_together():
    page = Page(render_report(make_manifest(), make_examples()))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    referred = {word for name, value in page.attributes if name == "aria-labelledby" for word in value.split()}
    assert referred <= set(ids)
    charts = [dict(attributes) for tag, attributes in page.elements if tag == "svg"]
    assert len(charts) == 5
    for chart in charts:
        assert chart.get("aria-hidden") == "true" or chart.get("aria-label") or chart.get("aria-labelledby")


def test_a_run_without_scores_examples_or_unjudged_rows_still_has_a_page():
    nothing = records.Counts(rows=0, kept=0, dropped=0, unjudged=0)
    page = Page(render_report(make_manifest(scores=(), unjudged=(), stages=(), steps=(), counts=nothing)))
    assert "Every row that reached a rule could be judged by it." in page.text
    assert "Rows on either side" not in page.text


def test_write_report_reads_the_folder_of_a_run(tmp_path):
    (tmp_path / "manifest.json").write_text(make_manifest().model_dump_json())
    (tmp_path / "examples.json").write_text(make_examples().model_dump_json())
    assert read_manifest(tmp_path) == make_manifest()
    assert read_examples(tmp_path) == make_examples()
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render_report(make_manifest(), make_examples())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["examples.json", "manifest.json", "report.html"]
    (tmp_path / "examples.json").unlink()
    assert "a red boat" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_missing_or_foreign_manifest_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match="expected the output folder of a finished `pycurate run`"):
        write_report(tmp_path)
    (tmp_path / "manifest.json").write_text(make_manifest().model_dump_json().replace('"kept":40', '"kept":"many"', 1))
    with pytest.raises(InputError, match=r"manifest.json: counts.kept: .* repeat the run"):
        write_report(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest.json: the file: Invalid JSON"):
        write_report(tmp_path)


def test_values_that_json_cannot_hold_become_null():
    row = records.ExampleRow(uid="0", shard="s", row=0, value=float("nan"))
    assert records.ExampleRow.model_validate_json(row.model_dump_json()).value is None


def test_funnel_bars_are_to_the_size_of_the_pool():
    _, language, quality = make_manifest().steps
    assert [(s.x, s.width, s.rule) for s in funnel_segments(language, 100)] == [(0, 700, None), (700, 300, 0)]
    assert [(s.x, s.width, s.rule) for s in funnel_segments(quality, 100)] == [
        (0, 400, None),
        (400, 250, 0),
        (650, 50, 1),
    ]


def chart_of(edges, counts, thresholds=(), drops=None):
    score = records.ScoreRecord(
        name="s",
        count=sum(counts),
        missing=0,
        histogram=records.HistogramRecord(edges=edges, counts=counts),
        thresholds=thresholds,
    )
    rules = [records.RuleRecord(name="r", description="", score="s", threshold=t, drops=drops) for t in thresholds]
    return histogram_chart(score, rules)


def test_histogram_bars_thresholds_and_ticks_share_one_axis():
    chart = chart_of((0.0, 0.25, 0.5, 0.75, 1.0), (10, 20, 40, 0), (0.5,), "below")
    middle = (LEFT + RIGHT) / 2
    assert chart.thresholds[0].x == middle
    assert chart.passing == (middle, RIGHT)
    assert {tick.label: tick.x for tick in chart.ticks}["0.4"] == pytest.approx(LEFT + 0.4 * (RIGHT - LEFT))
    tops = [float(part.split("H")[0]) for part in chart.path.split("V")[1::2]]
    heights = [BASE - top for top in tops]
    assert heights == pytest.approx([max(heights) / 4, max(heights) / 2, max(heights)], abs=0.02)
    assert chart.tails == ()


@pytest.mark.parametrize(("drops", "border"), [("below", 2.5), ("above", 3.5)])
def test_the_bar_of_a_whole_threshold_counts_as_passing(drops, border):
    chart = chart_of((0.5, 1.5, 2.5, 3.5, 4.5), (1, 1, 1, 1), (3.0,), drops)
    x = LEFT + (border - 0.5) / 4 * (RIGHT - LEFT)
    assert chart.thresholds[0].x == x
    assert chart.thresholds[0].label == "3"
    assert x in chart.passing


def test_two_thresholds_leave_the_range_between():
    score = records.ScoreRecord(
        name="s", count=4, missing=0, thresholds=(0.25, 0.75),
        histogram=records.HistogramRecord(edges=(0.0, 0.25, 0.5, 0.75, 1.0), counts=(1, 1, 1, 1)),
    )  # fmt: skip
    rules = [
        records.RuleRecord(name="low", description="", score="s", threshold=0.25, drops="below"),
        records.RuleRecord(name="high", description="", score="s", threshold=0.75, drops="above"),
        records.RuleRecord(name="other", description="", score="t", threshold=0.5, drops="above"),
    ]
    span = RIGHT - LEFT
    assert histogram_chart(score, rules).passing == (LEFT + span / 4, LEFT + span * 3 / 4)


def test_a_wide_end_bin_is_drawn_apart_and_told():
    chart = chart_of((0.0, 1.0, 2.0, 3.0, 4.0, 5000.0), (5, 5, 5, 5, 2))
    assert chart.tails == ("2 rows above 4, up to 5,000",)
    assert max(tick.x for tick in chart.ticks) < RIGHT - 10
    assert chart.passing is None


def test_a_score_without_values_has_no_chart_but_a_place():
    score = records.ScoreRecord(name="empty_score", count=0, missing=100)
    assert histogram_chart(score, ()) is None
    page = Page(render_report(make_manifest(scores=(score,))))
    assert "empty_score no value" in page.text


def test_summary_tells_steps_rules_and_files(tmp_path):
    (tmp_path / "report.html").touch()
    text = " ".join(render_summary(make_manifest(), tmp_path).replace("\xa0", " ").split())
    assert "40 of 100 rows kept (40.0 %) by trial" in text
    assert "language 100 30 30.0 % 70" in text
    assert "clip_l14 >= 0.25 25 35.7 %" in text
    assert "clip_l14 is NaN (policy: drop) 5 7.1 %" in text
    assert "1 min 05 s, peak memory 500 MB of 2 GB" in text
    assert "report.html" in text
    assert "manifest.json" not in text


def test_summary_wraps_names_and_keeps_numbers_in_columns():
    manifest = make_manifest()
    rule = manifest.steps[1].rules[0].model_copy(update={"description": "language is one of " + "en, " * 20})
    steps = (manifest.steps[1].model_copy(update={"rules": (rule,)}),)
    lines = render_summary(make_manifest(steps=steps), width=60).splitlines()
    table = lines[1:-2]
    assert max(map(len, table)) <= 60
    assert {line[:2] for line in table[2:]} == {"  "}
    assert [line.index("30") for line in table[1:3]] == [table[0].index("dropped") + 5] * 2
    assert "".join(line[:36] for line in table[2:]).count("en,") == 20


def test_summary_is_styled_for_terminals_only():
    assert "\x1b" not in render_summary(make_manifest())
    assert "\x1b[1m40\x1b[0m of 100 rows" in render_summary(make_manifest(), styled=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_share(1, 100_000), "<\xa00.1\xa0%"),
        (format_share(99_999, 100_000), ">\xa099.9\xa0%"),
        (format_share(0, 5), "0.0\xa0%"),
        (format_share(5, 5), "100.0\xa0%"),
        (format_share(0, 0), "–"),
        (format_bytes(999), "999\xa0B"),
        (format_bytes(999_700), "1\xa0MB"),
        (format_bytes(1_234_000_000_000_000), "1,234\xa0TB"),
        (format_bytes(None), "not measured"),
        (format_seconds(9.996), "10.0\xa0s"),
        (format_seconds(59.96), "1\xa0min 00\xa0s"),
        (format_seconds(7500), "2\xa0h 05\xa0min"),
        (format_value(-0.25), "−0.25"),
        (format_value(1234567.0), "1,234,567"),
        (format_value(1e300), "1e+300"),
        (format_value(0.123456789, 6), "0.123457"),
    ],
)
def test_numbers_for_people(text, expected):
    assert text == expected


def test_long_captions_and_links_are_cut_at_a_space():
    caption = "word " * 80
    text = Page(render_report(make_manifest(), make_examples(caption=caption, url="x" * 500))).text
    assert f"no picture {'word ' * 54}word… 0.25" in text
    assert "x" * 119 + "…" in text
    assert "x" * 120 not in text
