"""The reference: a page of Markdown, made of the docstrings of what cesium exports."""

import dataclasses
import inspect
import re

import cesium
import cesium.aio

SECTIONS = {
    "Opening": ["open", "from_frame", "Options", "KeyCodec", "ValueCodec"],
    "The store": ["Store", "Table", "Commit", "MISSING"],
    "Reading": ["Range", "Snapshot", "Column"],
    "Transactions": ["Transaction", "Savepoint", "retry"],
}
LATER = "Other names"
ERRORS = "Errors"
WIDTH = 90  # of a signature in one line


def reference():
    """The whole page."""
    sections = {title: list(names) for title, names in SECTIONS.items()}
    named = {name for names in sections.values() for name in names}
    rest = [name for name in cesium.__all__ if name not in named]
    errors = [name for name in rest if is_error(getattr(cesium, name))]
    sections[LATER] = [name for name in rest if name not in errors]
    sections[ERRORS] = errors
    lines = ["# Reference", "", "Everything that `import cesium` gives, as its docstrings have it."]
    for title, names in sections.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", *entry("cesium", name, getattr(cesium, name))]
    lines += ["", "## asyncio", "", text_of(cesium.aio)]
    for name in sorted(cesium.aio.__all__):
        lines += ["", *entry("cesium.aio", name, getattr(cesium.aio, name))]
    return "\n".join(lines) + "\n"


def is_error(value):
    return isinstance(value, type) and issubclass(value, BaseException)


def entry(module, name, value):
    """A heading, what the docstring says, and for a class its members."""
    lines = [f"### {module}.{name}", ""]
    if is_error(value):
        bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
        return [*lines, f"{text_of(value)} A kind of {bases}."]
    if not callable(value):
        return [*lines, "A constant."]
    lines += [f"```{{.python .no-copy}}\n{name}{signature_of(value)}\n```", "", text_of(value)]
    if isinstance(value, type):
        for member in sorted(members_of(value)):
            lines += ["", *member_entry(name, member, inspect.getattr_static(value, member), value)]
    return lines


def members_of(value):
    """Public methods and properties with a docstring, inherited ones included."""
    fields = (
        {field.name for field in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value)
        else set()
    )
    return {
        member
        for member in dir(value)
        if not member.startswith("_")
        and member not in fields
        and member not in dir(tuple)
        and (callable(getattr(value, member)) or is_property(value, member))
        and inspect.getdoc(getattr(value, member))
    }


def is_property(value, member):
    return inspect.isdatadescriptor(inspect.getattr_static(value, member))


def member_entry(name, member, found, value):
    call = "" if is_property(value, member) else signature_of(getattr(value, member))
    heading = f"#### `{name}.{member}`"
    return [heading, "", f"```{{.python .no-copy}}\n{member}{call}\n```", "",
            text_of(getattr(value, member))]  # fmt: skip


def signature_of(value):
    """With types as they are written, without self."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        parameter.replace(annotation=unquoted(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    result = unquoted(signature.return_annotation)
    text = str(signature.replace(parameters=parameters, return_annotation=result))
    if len(text) <= WIDTH:
        return text
    lines = [f"    {parameter}," for parameter in parameters]
    first = [place for place, found in enumerate(parameters) if found.kind is found.KEYWORD_ONLY]
    if first and not any(found.kind is found.VAR_POSITIONAL for found in parameters):
        lines.insert(first[0], "    *,")
    return "\n".join(["(", *lines, text[text.rindex(")") :]])


class Text(str):
    """An annotation as it was written."""

    def __repr__(self):
        return str(self)


def unquoted(annotation):
    return Text(annotation) if isinstance(annotation, str) else annotation


def text_of(value):
    """The docstring as Markdown; what Cython puts before it, the signature, is left out."""
    text = inspect.getdoc(value) or ""
    lines = text.splitlines()
    if lines and re.match(r"[\w.]+\(self\b.*\)", lines[0]):
        text = inspect.cleandoc("\n".join(lines[1:]))
    text = text.replace("<", "&lt;")
    return re.sub(r"(?<!`)\*(?=\w)", r"\\*", text)
