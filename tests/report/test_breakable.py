"""Long names on pages wrap between their parts."""

from __future__ import annotations

from segmed.report.templates import breakable, page_templates


def test_a_name_may_wrap_after_its_parts_and_stays_escaped() -> None:
    assert breakable("left_atrium/v1.2") == "left_<wbr>atrium/<wbr>v1.<wbr>2"
    assert breakable("a__b_") == "a__<wbr>b_"
    assert breakable("plain name") == "plain name"
    assert breakable("") == ""
    made = page_templates().from_string("{{ name|breakable }}").render(name="<i>_&amp;")
    assert made == "&lt;i&gt;_<wbr>&amp;amp;"
