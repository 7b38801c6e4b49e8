"""docs/library.md lists exactly the public names, and its examples use only these."""

import re
from pathlib import Path

import whimbrel

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text(encoding="utf-8")


def listed() -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_lists_every_public_name_and_no_other() -> None:
    assert sorted(listed()) == sorted(whimbrel.__all__)


def test_no_name_is_listed_twice() -> None:
    assert len(listed()) == len(set(listed()))


def test_every_public_name_is_there_and_documented() -> None:
    for name in whimbrel.__all__:
        assert getattr(whimbrel, name).__doc__, name


def test_the_examples_are_python_and_use_public_names_only() -> None:
    assert len(examples()) >= 2
    for example in examples():
        compile(example, "library.md", "exec")
        assert set(re.findall(r"whimbrel\.(\w+)", example)) <= set(whimbrel.__all__)
