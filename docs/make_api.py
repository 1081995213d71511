"""Text of `api.md`: every public name of the library, from the code itself.

Only read, never imported: the packages say in `__init__.py` what they export and from where.
`python docs/make_reference.py` writes the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent / "segmed"
HEAD = """\
# The Python interface

Made by `python docs/make_reference.py` from the code; do not edit. These are the public names of
the library, package by package. Import them from the package: `from segmed.io import read_image`.
Everything else may change without notice. [How-to](how-to.md#use-it-as-a-library) and the
[tutorial](tutorial.md) show complete examples; the [reference](reference.md) lists the commands.
"""
WIDTH = 96
"""Longest signature on one line."""
SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Source|Note|Example):$", flags=re.MULTILINE
)
ENTRY = re.compile(r"^(\*{0,2}[\w.]+): ", re.MULTILINE)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def api() -> str:
    """The page as it should be."""
    return HEAD + "".join(
        text
        for init in sorted(LIBRARY.rglob("__init__.py"), key=lambda path: path.parent.parts)
        for text in _package(init)
    )


def _package(init: Path) -> Iterator[str]:
    tree = _parsed(init)
    names = _exported(tree)
    if not names:
        return
    package = ".".join(init.parent.relative_to(LIBRARY.parent).parts)
    yield f"\n## {package}\n\n{_first_line(tree)}\n"
    origins = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for name in names:
        yield from _entry(name, init if name not in origins else _file(origins[name]), package)


def _entry(name: str, path: Path, package: str) -> Iterator[str]:
    """Heading, signature and docstring of one name."""
    body = _parsed(path).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, Definition) and node.name == name:
            yield f"\n### {package}.{name}\n\n```\n{_signature(node)}\n```\n\n{_prose(node)}"
            if isinstance(node, ast.ClassDef):
                yield from _methods(node)
            return
        if name in _assigned(node):
            yield f"\n### {package}.{name}\n\n{_value(node)}{_text_after(after)}"
            return
    origins = [
        n for n in body if isinstance(n, ast.ImportFrom) and name in {a.name for a in n.names}
    ]
    if origins and origins[0].module:  # a package below re-exports it
        yield from _entry(name, _file(origins[0].module), package)


def _methods(node: ast.ClassDef) -> Iterator[str]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            yield f"\n- `{_signature(method, 10**6)}`: {_first_line(method)}\n"


def _signature(node: Definition, width: int = WIDTH) -> str:
    """Signature of a call, over several lines if one would be too long."""
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                return _call(f"class {node.name}", _arguments(method), "", width)
        fields = [
            ast.unparse(field)
            for field in node.body
            if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_")
        ]
        return _call(f"class {node.name}", fields, "", width) if fields else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any(ast.unparse(one).endswith("property") for one in node.decorator_list):
        return f"{node.name}{returns}"
    return _call(node.name, _arguments(node), returns, width)


def _call(start: str, parts: list[str], end: str, width: int) -> str:
    line = f"{start}({', '.join(parts)}){end}"
    if len(line) <= width:
        return line
    return f"{start}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The arguments as they are written, `self` and `cls` left out."""
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults))
    parts = _with_defaults(plain, defaults + list(given.defaults))
    if given.vararg:
        parts.append(f"*{ast.unparse(given.vararg)}")
    elif given.kwonlyargs:
        parts.append("*")
    parts += _with_defaults(given.kwonlyargs, given.kw_defaults)
    if given.kwarg:
        parts.append(f"**{ast.unparse(given.kwarg)}")
    return parts[1:] if parts and parts[0] in ("self", "cls") else parts


def _with_defaults(given: list[ast.arg], defaults: Sequence[ast.expr | None]) -> list[str]:
    return [
        ast.unparse(one) + (f" = {ast.unparse(default)}" if default is not None else "")
        for one, default in zip(given, defaults, strict=True)
    ]


def _prose(node: Definition) -> str:
    """A docstring as Markdown: sections in bold, their entries as lists."""
    text = ast.get_docstring(node) or ""
    parts = SECTION.split(text)
    written = [_inline(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        entries = _listed(body)
        written.append(f"**{title}**\n\n{entries}")
    return "\n\n".join(part.strip() for part in written) + "\n"


def _listed(body: str) -> str:
    """The entries of a section, one a line; a section of one text as it is."""
    lines = re.sub(r"^ {4}", "", body.strip("\n"), flags=re.MULTILINE)
    joined = re.sub(r"\n +", " ", lines)
    if ENTRY.match(joined):
        return ENTRY.sub(lambda found: f"- `{found[1]}`: ", joined)
    return joined


def _inline(text: str) -> str:
    return text.strip().replace("```python", "```")


def _first_line(node: Definition | ast.Module) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _text_after(node: ast.stmt | None) -> str:
    """The string below a constant, which describes it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split()) + "\n"
    return ""


def _value(node: ast.stmt) -> str:
    """A plain constant's value."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Constant | ast.Tuple) and len(found := ast.unparse(value)) <= WIDTH:
        return f"`{found}`\n\n"
    return ""


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and "__all__" in _assigned(node):
            return sorted(ast.literal_eval(node.value), key=str.lower)
    return []


def _file(module: str) -> Path:
    place = LIBRARY.parent / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
