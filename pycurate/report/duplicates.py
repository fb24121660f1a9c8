"""The report's section on duplicates: how large their groups are, and what is in some of them."""

from __future__ import annotations

from collections.abc import Sequence

from pycurate.report.formats import format_value
from pycurate.report.manifest import DuplicateGroup, DuplicatesRecord, ExampleRow, GroupsRecord
from pycurate.report.markup import count, picture, shortened, text

CAPTION_CHARS = 90
THUMBNAIL_PIXELS = 112


def duplicates_section(record: GroupsRecord | None, groups: Sequence[DuplicateGroup]) -> str:
    """The section as HTML; nothing where no step of the run drops duplicates.

    Parameters
    ----------
    record
        Of the manifest.
    groups
        The groups to show, in the order of ``Examples.duplicates``.
    """
    if record is None:
        return ""
    steps = "".join(_step(step, [group for group in groups if group.step == step.step]) for step in record.steps)
    return f"""<section aria-labelledby="duplicates">
<h2 id="duplicates">Duplicates</h2>
<p class="note">A group is a row that a step kept and the rows it dropped in its favour; the number is the \
similarity to the row in whose favour it was dropped. All of them are in <code>{text(record.path)}</code> \
({count(record.rows, "row")}).</p>
{steps}</section>

"""


def _step(step: DuplicatesRecord, groups: Sequence[DuplicateGroup]) -> str:
    if not step.groups:
        return f'<article>\n<h3>{text(step.step)}</h3>\n<p class="quiet">No row duplicates another.</p>\n</article>\n'
    sheets = []
    for choice in ("largest", "least similar"):
        mine = [group for group in groups if group.choice == choice]
        if mine:
            heading = "Largest groups" if choice == "largest" else _other_groups(mine)
            sheets.append(f"<h4>{heading}</h4>\n{''.join(_sheet(group, _has_pictures(groups)) for group in mine)}")
    return f"""<article>
<h3>{text(step.step)}</h3>
<p class="flow"><strong>{count(step.dropped, "row")} dropped</strong> <span class="quiet">of \
{count(step.groups, "group")}; the largest has {count(step.largest, "row")}</span></p>
{_sizes(step)}{"".join(sheets)}</article>
"""


def _other_groups(groups: Sequence[DuplicateGroup]) -> str:
    differ = any(row.value is not None and row.value < 1 for group in groups for row in group.rows)
    return "Groups with the least similar rows" if differ else "Other groups, by uid"


def _sizes(step: DuplicatesRecord) -> str:
    most = max(size.groups for size in step.sizes)
    rows = "".join(
        f"""<tr>
<th scope="row" class="num">{size.low:,}–{size.high:,}</th>
<td><svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">\
<rect class="gone" width="100" height="12"/><rect class="plain" width="{max(100 * size.groups / most, 0.4):.2f}" \
height="12"/></svg></td>
<td class="num">{size.groups:,}</td>
</tr>
"""
        for size in step.sizes
    )
    return f"""<table class="sizes">
<thead><tr><th scope="col" class="num">rows of a group</th><th scope="col"></th>\
<th scope="col" class="num">groups</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
"""


def _has_pictures(groups: Sequence[DuplicateGroup]) -> bool:
    return any(row.image or row.image_note for group in groups for row in (group.keeper, *group.rows))


def _sheet(group: DuplicateGroup, pictures: bool) -> str:
    more = group.size - 1 - len(group.rows)
    rest = f'<li class="more quiet">and {more:,} more</li>\n' if more else ""
    rows = "".join(_tile(row, pictures, False) for row in group.rows)
    return f"""<ul class="sheet" aria-label="Group of {count(group.size, "row")}">
{_tile(group.keeper, pictures, True)}{rows}{rest}</ul>
"""


def _tile(row: ExampleRow, pictures: bool, kept: bool) -> str:
    image = picture(row.image, row.image_note, THUMBNAIL_PIXELS) + "\n" if pictures else ""
    if kept:
        place = '<span class="is-kept">kept</span>'
        place += "" if row.shard else ' <span class="quiet">not in this pool</span>'
    else:
        place = f'<span class="is-dropped">dropped</span> · {text(format_value(row.value, 4))}'
    caption = (
        f'<p class="caption" dir="auto">{text(shortened(row.caption, CAPTION_CHARS))}</p>\n' if row.caption else ""
    )
    return f"""<li>
{image}<p class="where">{place}</p>
{caption}<p class="where"><code title="{text(row.uid)}">{text(row.uid[:12])}…</code></p>
</li>
"""
