"""Tables and the page, as a person reads them."""

import html.parser

from relvit_jax.analysis import report

TABLE = report.Table(("arm", "steps"), [("short", "1,000"), ("a < b", "50")])


def test_a_table_in_the_terminal_is_aligned():
  assert str(TABLE).splitlines() == [
    "arm    steps",
    "────────────",
    "short  1,000",
    "a < b     50",
  ]


def test_a_table_in_a_notebook_is_escaped_and_aligned():
  written = TABLE._repr_html_()
  assert '<td style="text-align: left">a &lt; b</td>' in written
  assert '<td style="text-align: right">1,000</td>' in written
  assert written.count("<tr>") == 3


def test_the_page_shows_what_it_was_given_and_escapes_it(tmp_path):
  path = tmp_path / "index.html"
  report.write_page(
    path,
    title="Digits & more",
    subtitle="three ways",
    verdict="It <helps>.",
    sections=[
      report.Section("Numbers", "As measured.", table=TABLE),
      report.Section("Curves", image="curves.png", caption="Mean."),
    ],
    facts={"time": "3 s"},
  )
  page = path.read_text(encoding="utf-8")
  assert "It &lt;helps&gt;." in page
  assert "<td>a &lt; b</td><td>50</td>" in page
  assert '<img src="curves.png" alt="Curves">' in page
  assert "<dt>time</dt><dd>3 s</dd>" in page

  class Balanced(html.parser.HTMLParser):
    def __init__(self):
      super().__init__()
      self.open_tags = []

    def handle_starttag(self, tag, attrs):
      if tag not in ("meta", "img"):
        self.open_tags.append(tag)

    def handle_endtag(self, tag):
      assert self.open_tags.pop() == tag

  parser = Balanced()
  parser.feed(page)
  assert parser.open_tags == []
