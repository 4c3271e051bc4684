"""Every python block of README and the pages about peers runs, in order, one page one namespace."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "peers").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """The page's code blocks: language, code, line of the first code line."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield match[1], match[2], text.count("\n", 0, match.start(2)) + 1


def ids(page):
    return page.stem


def test_there_is_a_page_for_every_peer():
    assert {"spikingjelly", "snntorch", "norse", "spyx"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "README.md",
        ROOT / "docs" / "learning.md",
        # They compile or train several networks; their calls have tests of their own.
        *(
            pytest.param(ROOT / "docs" / f"{n}.md", marks=pytest.mark.slow)
            for n in ("conversion", "memory", "redundancy", "sequences")
        ),
        *PAGES,
    ],
    ids=ids,
)
def test_the_code_of_the_page_runs(page):
    namespace = {"__name__": page.stem}
    ran = 0
    for language, code, line in blocks(page):
        if language == "python":
            # Blank lines in front, so that a traceback shows the page's own line.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
            ran += 1
    assert ran > 0, "a page shows our side in code that runs"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_code_of_another_library_is_marked_as_text(page):
    languages = {language for language, _, _ in blocks(page)}
    assert languages == {"python", "text"}
    for language, code, _ in blocks(page):
        if language == "python":
            assert not re.search(
                r"^(import|from) (torch|snntorch|norse|spyx|spikingjelly)", code, re.M
            )
