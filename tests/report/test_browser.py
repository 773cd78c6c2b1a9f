"""The page in a browser, where there is one: tables sort, an image opens its page, nothing goes wrong on the way."""

import json
import re
import shutil
import subprocess

import pytest

from robust_saliency.report import report
from tests.report.fabricated_study import write_study
from tests.report.read_page import Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not tried in a browser")

WATCH = """<script>
window.wrong = [];
window.addEventListener("error", (event) => wrong.push(String(event.message || event.target)), true);
window.addEventListener("unhandledrejection", (event) => wrong.push(String(event.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => wrong.push(words.join(" "));
</script>"""

ACT = """<script>
(async () => {
  const found = {};
  const settled = () => new Promise((resolve) => setTimeout(resolve, 200));
  const table = (name) => document.querySelector(`table[data-name="${name}"]`);
  const told = (row) => [row.className, row.cells[0].textContent.trim()];
  const rows = (name) => [...table(name).tBodies[0].rows].map(told);
  const click = (name, column) => {
    const head = table(name).tHead.rows[0].cells[column];
    const button = head.querySelector("button");
    table(name).closest("details")?.setAttribute("open", "");
    button.focus();
    button.click();
    const isFocused = document.activeElement === button || button.getClientRects().length === 0;
    return [head.getAttribute("aria-sort"), isFocused, rows(name)];
  };
  const isShown = (selector) => document.querySelector(selector).getClientRects().length > 0;
  const fits = () => document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  const state = () => ({
    hash: location.hash, fits: fits(), main: isShown("main"),
    views: [...document.querySelectorAll(".view")].filter((view) => isShown("#" + view.id)).map((view) => view.id),
  });
  try {
    found.sorted = {};
    for (const [name, column] of SORTS) {
      found.sorted[`${name} ${column}`] = [rows(name), click(name, column), click(name, column), click(name, column)];
    }
    found.heads = document.querySelectorAll("[aria-sort]").length;
    found.start = state();
    document.querySelector('#row-1 a').click();
    await settled();
    const view = document.querySelector("#image-1");
    found.opened = state();
    found.text = view.innerText;
    found.widths = [...view.querySelectorAll(".pic > *")].map((part) => part.getBoundingClientRect().width);
    [...view.querySelectorAll("nav a")].find((link) => link.textContent.includes("Next")).click();
    await settled();
    found.next = state();
    document.querySelector("#image-2 nav a").click();
    await settled();
    found.back = state();
    found.place = document.querySelector("#row-2").getBoundingClientRect().top;
    found.height = innerHeight;
  } catch (error) {
    wrong.push(String(error.stack));
  }
  found.wrong = wrong;
  const answer = document.createElement("pre");
  answer.id = "found";
  answer.textContent = JSON.stringify(found);
  document.body.replaceChildren(answer);
})();
</script>"""

SORTS = [
    ("maps gradient", 1),
    ("maps gradient", 4),
    ("maps gradient", 0),
    ("overview", 1),
    ("overview", 3),
    ("scores 1", 1),
    ("scores 1", 2),
    ("tests", 6),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report(write_study(tmp_path_factory.mktemp("study"), seeds=(0, 1), num_examples=20)).read_text()


@pytest.fixture(scope="module", params=[1400, 400])
def tried(request, page, tmp_path_factory):
    """``(page, what happened)`` in a window so wide, or as narrow as the browser allows."""
    folder = tmp_path_factory.mktemp("browser")
    act = ACT.replace("SORTS", json.dumps(SORTS))
    (folder / "tried.html").write_text(
        page.replace("<style>", f"{WATCH}<style>", 1).replace("</body>", f"{act}</body>")
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={request.param},900",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", "--dump-dom",
        (folder / "tried.html").as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    told = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.S)
    assert told, ran.stderr[-2000:]
    unescaped = told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u00a0").replace("&amp;", "&")
    assert "CONSOLE" not in ran.stderr, ran.stderr
    return page, json.loads(unescaped)


def values(page, name, column):
    """By row, in the order of the page: kind, header, and the number that is shown in the column."""
    found = []
    for kind, header, cells in Page(page).tables[name][1:]:
        shown = {} if column == 0 or kind == "section" else cells[column - 1]
        text = shown.get("value", shown.get("number", shown.get("text", "")))
        number = re.match(r"[+-]?[\d.]+(e-?\d+)?", text)
        found.append((kind, header[0], float(number[0]) if number else None))
    return found


def blocks(rows):
    """Rows that belong together: a run with its seeds; of what stays, a row alone."""
    found = []
    for row in rows:
        if row[0] == "seed":
            found[-1].append(row)
        else:
            found.append([row])
    return found


def in_order(rows, key, *, reverse):
    """``rows`` sorted within each section, what stays kept at its place."""
    done, part = [], []
    for block in [*blocks(rows), None]:
        if block is not None and block[0][0] == "run":
            part.append(block)
            continue
        done += sorted(part, key=lambda block: key(block[0]), reverse=reverse)
        part = []
        done += [block] if block is not None else []
    return [row for block in done for row in block]


@pytest.mark.parametrize(("name", "column"), SORTS)
def test_a_click_on_a_head_sorts_by_the_shown_value_and_rows_that_belong_together_stay_together(tried, name, column):
    page, found = tried
    before, *clicks = found["sorted"][f"{name} {column}"]
    rows = values(page, name, column)
    assert len({row[2] for row in rows}) > 2 or column == 0
    key = (lambda row: row[1]) if column == 0 else (lambda row: row[2])
    low_first = column == 0 or (name, column) == ("maps gradient", 4)
    orders = ["ascending", "descending"] if low_first else ["descending", "ascending"]
    for order, (state, focused, sorted_rows) in zip([*orders, None], clicks, strict=True):
        assert (state, focused) == (order, True)
        expected = rows if order is None else in_order(rows, key, reverse=order == "descending")
        plain = [[kind, re.sub(r"\s+", "", header)] for kind, header, _ in expected]
        assert [[kind, re.sub(r"\s+", "", header)] for kind, header in sorted_rows] == plain
    assert clicks[0][-1] != clicks[1][-1] and clicks[2][-1] == before


def test_a_click_on_an_image_opens_its_page_with_its_numbers_and_leads_on_and_back(tried):
    page, found = tried
    assert found["start"] == {"hash": "", "fits": True, "main": True, "views": []}
    assert found["opened"] == {"hash": "#image-1", "fits": True, "main": False, "views": ["image-1"]}
    for _, header, cells in Page(page).rows("scores 1", "run") + Page(page).rows("outcomes 1", "run"):
        text = found["text"].replace("\u2212", "-")
        assert header[0] in text and all(cell["text"] in text for cell in cells)
    assert "Image 1:" in found["text"] and min(found["widths"]) >= 150
    assert found["next"] == {"hash": "#image-2", "fits": True, "main": False, "views": ["image-2"]}
    assert found["back"] == {"hash": "#row-2", "fits": True, "main": True, "views": []}
    assert 0 < found["place"] < found["height"]


def test_nothing_goes_wrong_on_the_way(tried):
    _, found = tried
    assert found["wrong"] == [] and found["heads"] == 0
