"""Find words that read like a translation, and say what to write instead.

    python .ci/prose.py

Checks

- the pages: README.md, CONTRIBUTING.md, CHANGELOG.md, docs and examples, without their code blocks;
- the docstrings, string literals and comments of the package, the examples and the benchmarks;
- the docstrings, comments and names of the tests, whose literals are often what callers and providers write;
- the comments of Lua scripts.

Released migrations do not change and are left out.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "examples/**/*.md")
CODE = ("models", "producer", "worker", "understudy", "examples", "benchmarks")

WORDS = {
    r"anew": "again, from scratch",
    r"mend(s|ed|ing)?": "fix",
    r"beside": "next to, besides, as well as",
    r"so (many|much|often)": "this many, or name the number",
    r"for so long": "for this long, or name the time",
    r"nobody": "no one, or name the person",
    r"somebody": "someone, or name the person",
    r"anybody|everybody": "anyone, everyone, or name them",
    r"whoever|whomever": "anyone who, or name the person",
    r"hither|thither|hence|whence": "here, there, so",
    r"thereof|therein|thereby|whereof|wherein|whereby": "of it, in it, by it",
    r"for ever": "forever",
    r"whilst": "while",
    r"upon": "on",
    r"shall": "must, will",
    r"till": "until",
    r"in vain": "without success, for nothing",
    r"dear(er|est)?": "expensive",
    r"stands? still|stood still": "stop",
    r"what (came|comes|became|becomes) of": "the outcome, what happened to",
    r"nothing of (it|this|that|them)": "none of it",
    r"(say|says|said|saying|speak|speaks|spoke|tell|tells|told|telling) of": "say about, report, mention",
    r", also (of|for|with|in|by|on|to|from|at|after|when|where|while|if|those)": "including, even, and … as well",
    r"what is made of": "how … is used",
    r"(has|have|had) not (the|an?)": "does not have",
    r"(?<!there\s)(is|are|was|were) no (?!longer|more|one|less|fewer|different|better|worse|larger)\w+": "is not a",
    r"(hang|hangs|hung) up on": "disconnect",
    r"(take|takes|took) no notice": "ignore",
    r"stands? (in|there|beside)(?! for| the way)": "is in",
}
"""A pattern for each word, and what to write instead."""

PATTERNS = [
    (re.compile(rf"\b({word})\b".replace(" ", r"\s+"), re.IGNORECASE), instead) for word, instead in WORDS.items()
]
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


class Finding(NamedTuple):
    line: int  # from 1
    word: str
    instead: str


def in_text(text: str, first_line: int = 1) -> list[Finding]:
    """The findings in a text that begins on this line of its file."""
    return sorted(
        Finding(first_line + text.count("\n", 0, found.start()), " ".join(found[0].split()), instead)
        for pattern, instead in PATTERNS
        for found in pattern.finditer(text)
    )


def in_page(markdown: str) -> list[Finding]:
    """The findings in a page, outside its code blocks."""
    return in_text(CODE_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), markdown))


def in_module(source: str) -> list[Finding]:
    """The findings in the docstrings, string literals and comments of a module."""
    strings = [(str(each.value), each.lineno) for each in _strings(ast.parse(source))]
    return _in_texts(strings + _comments(source))


def in_tests(source: str) -> list[Finding]:
    """The findings in the docstrings, comments and names of a module of tests."""
    nodes = list(ast.walk(ast.parse(source)))
    documenting = {id(each.value) for each in nodes if isinstance(each, ast.Expr)}  # constants have docstrings, too
    docstrings = [(str(each.value), each.lineno) for each in _strings(nodes[0]) if id(each) in documenting]
    functions = (each for each in nodes if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    names = [(each.name.replace("_", " "), each.lineno) for each in functions]
    return _in_texts(docstrings + names + _comments(source))


def in_script(lua: str) -> list[Finding]:
    """The findings in the comments of a Lua script."""
    return in_text("\n".join(line.partition("--")[2] for line in lua.splitlines()))


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    return (each for each in ast.walk(tree) if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _comments(source: str) -> list[tuple[str, int]]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(each.string, each.start[0]) for each in tokens if each.type == tokenize.COMMENT]


def _in_texts(texts: list[tuple[str, int]]) -> list[Finding]:
    return sorted(finding for text, line in texts for finding in in_text(text, line))


def report() -> Iterator[str]:
    """A line for each finding: file, line, word and replacement."""
    for pattern in PAGES:
        for page in sorted(ROOT.glob(pattern)):
            yield from _lines(page, in_page(page.read_text(encoding="utf-8")))
    for folder in CODE:
        for module in sorted((ROOT / folder).rglob("*.py")):
            if module.parent.name != "versions":  # released migrations do not change
                yield from _lines(module, in_module(module.read_text(encoding="utf-8")))
        for script in sorted((ROOT / folder).rglob("*.lua")):
            yield from _lines(script, in_script(script.read_text(encoding="utf-8")))
    for module in sorted((ROOT / "tests").rglob("*.py")):
        yield from _lines(module, in_tests(module.read_text(encoding="utf-8")))


def _lines(path: Path, findings: list[Finding]) -> Iterator[str]:
    return (f"{path.relative_to(ROOT)}:{line}: {word}: write {instead}" for line, word, instead in findings)


if __name__ == "__main__":
    lines = list(report())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.exit(bool(lines))
