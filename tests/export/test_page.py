"""The documentation page on export: its code runs."""

from tests.test_docs import ROOT, blocks


def test_the_code_of_the_page_runs():
    namespace = {}
    for language, code, line in blocks(ROOT / "docs" / "export.md"):
        if language == "python":
            exec(compile("\n" * (line - 1) + code, "docs/export.md", "exec"), namespace)
    assert namespace["logits"].shape == namespace["outputs"].shape == (3, 10)
