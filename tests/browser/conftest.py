# SPDX-License-Identifier: Apache-2.0
"""Chromium with pages of toy networks; where playwright or Chromium is missing, every test says so."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# In a container there is no right to a sandbox, and little shared memory.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
LONG = "Sauerkrautundkartoffelbreimitgeschmortenzwiebeln" * 2


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium as the machine has it; playwright's own is not downloaded."""
    reason = "playwright is not installed: make test-extras"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    chromium = shutil.which("chromium") or shutil.which("/usr/bin/chromium")
    if chromium is None:
        pytest.skip("there is no chromium on PATH, and none at /usr/bin/chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pages(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by name, of a ViT and a CNN that were never trained and a drawn photograph.

    It takes `browser` to be skipped with it, before anything is computed.
    """
    from tests.unit.explained import draw, save_cnn, save_vit, written
    from tests.unit.pictures import LABELS

    place = tmp_path_factory.mktemp("pages")
    long = [f"{LONG}_{label}" for label in LABELS]
    for name, labels in (("", LABELS), (LONG, long)):
        save_vit(place / f"vit{name}", labels=labels, image_size=48)
        save_cnn(place / f"cnn{name}", labels)
        draw(place / f"dinner{name}.png", height=60, width=96)

    two, dinner = [place / "vit", place / "cnn"], place / "dinner.png"
    longer = [place / f"vit{LONG}", place / f"cnn{LONG}"]
    made = {
        "en": written(two, dinner),
        "ko": written(two, dinner, language="ko"),
        "cnn": written(two[1:], dinner),
        "long": written(longer, place / f"dinner{LONG}.png"),
    }
    for name, text in made.items():
        (place / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: place / f"{name}.html" for name in made}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """opened(name, **options of the context) -> the page from its file.

    At the end nothing may have been asked of any network, nor may a line be on the console, where errors
    stand and what the policy forbids.
    """
    asked, complaints, contexts = [], [], []

    def opened(name: str, width: int = 1200, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(pages[name].as_uri(), wait_until="load")
        assert page.url.startswith("file:///")
        return page

    yield opened
    for context in contexts:
        context.close()
    left = {url for url in asked if not url.startswith("data:image/")}
    assert left <= {path.as_uri() for path in pages.values()}
    assert complaints == []
