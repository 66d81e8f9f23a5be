# SPDX-License-Identifier: Apache-2.0
"""The page of `food101 explain` in Chromium: what a reader can do with it, and what it never does."""

import json
import re

import pytest

NAMES = ("en", "ko", "cnn", "long")


def drawn(page, selector: str) -> list[str]:
    """What is on each canvas."""
    return page.eval_on_selector_all(selector, "all => all.map(canvas => canvas.toDataURL())")


def chosen(page) -> tuple[str, str]:
    """What is chosen, as the section of patches and that of the block say it."""
    return tuple(
        page.locator(f"{place} .hint .chosen").text_content() for place in ("#patches", "#block")
    )


def facts_of(page) -> dict:
    return json.loads(page.locator("#facts").text_content())


def click(page, view: str, row: int, column: int) -> None:
    """Click a patch, both numbered from 1, of the 6 x 6."""
    canvas = page.locator(f'canvas[data-draw="{view}"]')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    place = {"x": (column - 0.5) * box["width"] / 6, "y": (row - 0.5) * box["height"] / 6}
    canvas.click(position=place)


# ---- sliders, patches ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_is_drawn(opened, name):
    page = opened(name)
    colours = page.eval_on_selector_all(
        "canvas",
        """all => all.map(canvas => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        })""",
    )
    assert len(colours) == (2 if name == "cnn" else 17) and min(colours) > 4


def test_the_slider_of_blocks_changes_the_pictures_of_the_heads(opened):
    page = opened("en")
    layer, heads = page.locator("#layer"), '#attention [data-draw="head"]'
    seen = [drawn(page, heads)]
    mean = [drawn(page, '[data-draw="mean"]')]
    assert page.locator("#layer-number").text_content() == "3" and len(seen[0]) == 4
    layer.focus()
    for number in ("2", "1"):
        layer.press("ArrowLeft")
        assert page.locator("#layer-number").text_content() == number
        seen.append(drawn(page, heads))
        mean.append(drawn(page, '[data-draw="mean"]'))
    assert len({picture for each in seen for picture in each}) == 12
    assert len({picture for each in mean for picture in each}) == 3
    own = facts_of(page)["attention"]["own"][0]
    told = page.locator("output.own").all_text_contents()
    assert [float(text.rstrip(" %")) / 100 for text in told] == pytest.approx(own, abs=0.006)
    layer.fill("3")
    assert drawn(page, heads) == seen[0]


def test_the_slider_of_heads_changes_row_and_vectors(opened):
    page = opened("en")
    views = [drawn(page, '#block [data-draw="row"], #block [data-draw="vector"]')]
    page.locator("#head-number").fill("4")
    assert page.locator("#head-shown").text_content() == "4"
    views.append(drawn(page, '#block [data-draw="row"], #block [data-draw="vector"]'))
    assert [len(view) for view in views] == [4, 4]
    assert all(before != after for before, after in zip(*views, strict=True))


@pytest.mark.parametrize("view", ["patches", "alike", "row"])
def test_a_click_on_a_patch_changes_all_that_is_of_it(opened, view):
    page = opened("en")
    depend = ", ".join(
        f'[data-draw="{each}"]' for each in ("patches", "patch", "alike", "row", "vector")
    )
    before, others = drawn(page, depend), drawn(page, '[data-draw="head"], [data-draw="why"]')
    assert chosen(page) == ("patch 22, row 4, column 4",) * 2
    click(page, view, 2, 5)
    assert chosen(page) == ("patch 11, row 2, column 5",) * 2
    after = drawn(page, depend)
    assert len(after) == 7 and all(a != b for a, b in zip(before, after, strict=True))
    assert drawn(page, '[data-draw="head"], [data-draw="why"]') == others


def test_arrow_keys_move_and_stop_at_the_rim(opened):
    page = opened("en")
    canvas = page.locator('[data-draw="patches"]')
    canvas.focus()
    for key, row, column in (
        ("ArrowRight", 4, 5),
        ("ArrowUp", 3, 5),
        ("ArrowLeft", 3, 4),
        ("ArrowDown", 4, 4),
    ):
        canvas.press(key)
        assert f"row {row}, column {column}" in chosen(page)[0]
    for _ in range(9):
        canvas.press("ArrowUp")
    assert "row 1, column 4" in chosen(page)[0]
    scrolled = page.evaluate("scrollY")
    canvas.press("ArrowUp")
    assert page.evaluate("scrollY") == scrolled


def test_the_class_token_can_be_asked(opened):
    page = opened("en")
    row = '[data-draw="row"]'
    before = drawn(page, row)
    page.locator("#ask-class-token").click()
    assert chosen(page) == ("patch 22, row 4, column 4", "class token")
    assert drawn(page, row) != before
    click(page, "row", 4, 4)
    assert chosen(page)[1] == "patch 22, row 4, column 4" and drawn(page, row) == before


def test_a_row_is_as_bright_as_its_softmax(opened):
    """The class token's, as no frame is drawn: each patch is darkened by 0.8 of what it lacks."""
    page = opened("en")
    page.locator("#ask-class-token").click()
    shares = page.evaluate(
        """() => {
          const canvas = document.querySelector('[data-draw="row"]');
          const copied = image => {
            const copy = document.createElement("canvas");
            [copy.width, copy.height] = [canvas.width, canvas.height];
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(image, 0, 0, copy.width, copy.height);
            return context;
          };
          const shown = copied(canvas), plain = copied(document.getElementById("seen"));
          const side = canvas.width / 6;
          const sum = (context, i) => context
            .getImageData((i % 6) * side, Math.floor(i / 6) * side, side, side)
            .data.reduce((all, value, at) => all + (at % 4 === 3 ? 0 : value), 0);
          return [...Array(36).keys()].map(i => sum(shown, i) / sum(plain, i));
        }"""
    )
    block = facts_of(page)["block"]
    packed = page.evaluate(
        "text => [...atob(text)].map(c => c.charCodeAt(0))", block["rows"]["data"]
    )
    assert block["rows"]["shape"] == [4, 37, 37]
    expected = [1 - 0.8 * (255 - value) / 255 for value in packed[1:37]]
    assert shares == pytest.approx(expected, abs=0.02)


# ---- how it looks --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_a_phone_needs_no_scrolling_sideways(opened, name, scheme):
    page = opened(name, 390, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    outside = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
          .filter(each => !each.closest(".wide, svg, noscript") && each.getBoundingClientRect().right > 391)
          .map(each => each.tagName)"""
    )
    assert outside == []


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_in_light_and_dark(opened):
    """WCAG's contrast of 4.5, of text, of what is said aside, and of what is set off."""
    backs = []
    for scheme in ("light", "dark"):
        page = opened("en", color_scheme=scheme)
        back = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        backs.append(back)
        for selector in ("body", "figcaption", ".dish span", "button"):
            text = luminance(page.eval_on_selector(selector, "e => getComputedStyle(e).color"))
            light, dark = max(text, back), min(text, back)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, selector)
    assert backs[0] > 0.8 and backs[1] < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_printed(opened, name):
    page = opened(name, color_scheme="dark")
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-") and printed.rstrip().endswith(b"%%EOF")
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    pictures = len(re.findall(rb"/Subtype\s*/Image\b", printed))
    least = (1, 3) if name == "cnn" else (4, 15)
    assert least[0] <= sheets <= 12 and pictures >= least[1] and len(printed) > 20_000


def test_on_paper_the_controls_are_gone_and_their_values_stay(opened):
    page = opened("en", color_scheme="dark")
    page.emulate_media(media="print")
    for selector in ("#layer", "#head-number", "#ask-class-token"):
        assert not page.locator(selector).is_visible()
    assert page.locator("#layer-number").is_visible() and page.locator("#head-shown").is_visible()
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(back) == pytest.approx(1)


def test_korean_is_korean_where_the_script_speaks_too(opened):
    page = opened("ko")
    assert page.evaluate("document.documentElement.lang") == "ko"
    for selector in ("h1", "#own", "#block .hint", "#ask-class-token"):
        assert re.search(r"[가-힣]", page.locator(selector).text_content()), selector
    click(page, "patches", 1, 2)
    assert chosen(page)[0] == "패치 2, 1행 2열"


def test_without_javascript_the_text_stands(opened):
    page = opened("en", java_script_enabled=False)
    assert page.locator("noscript p").is_visible()
    assert page.locator("#head .scores").is_visible() and page.locator("#seen").is_visible()


# ---- what it never does --------------------------------------------------------------------------


def test_the_policy_stops_what_somebody_puts_in(browser, pages, tmp_path):
    """Else no other test of this file would notice that nothing is asked for."""
    text = pages["cnn"].read_text("utf-8")
    put = (
        "<script>document.title = 'changed'</script><img src='http://127.0.0.1:9/x.png'>"
        "<p style='color: red' id='red'>"
    )
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(text.replace("<main>", "<main>" + put), encoding="utf-8")
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(spoilt.as_uri(), wait_until="load")
    assert page.title() != "changed"
    assert page.eval_on_selector("#red", "e => getComputedStyle(e).color") != "rgb(255, 0, 0)"
    page.close()
    for rule in ("script-src", "img-src", "style-src"):
        assert any(rule in line for line in complaints), rule
