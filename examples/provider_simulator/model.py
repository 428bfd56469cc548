"""What the model says: a text, calls of the tools it is offered, or JSON that fits a schema.

It calls every tool that it may call, once, and speaks when it has the results.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DEEPEST = 16
"""Levels of a schema that are filled; a recursive one has no end."""


@dataclass
class Said:
    """Either a text or calls: pairs of name and arguments."""

    text: str = ""
    calls: Sequence[tuple[str, Any]] = ()


@dataclass
class Asked:
    """What a request asks for, whichever API it came by."""

    tools: list[tuple[str, Any]] = field(default_factory=list)
    """Names and schemas of those that may be called now."""
    schema: Any = None
    """Of the JSON that is wanted."""
    is_result: bool = False
    """The last turn has the results of calls."""

    def answer(self, model: str) -> Said:
        if self.tools and not self.is_result:
            return Said(calls=[(name, instance(schema)) for name, schema in self.tools])
        if self.schema is not None:
            return Said(json.dumps(instance(self.schema)))
        # An answer never repeats what stood in the request.
        return Said(f"Hello from the provider simulator, in the role of {model}.")


def openai(request: dict) -> Asked:
    functions = [tool.get("function") or {} for tool in _dicts(request.get("tools"))]
    tools = [(function.get("name", ""), function.get("parameters")) for function in functions]
    choice = request.get("tool_choice")
    named = choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else None
    tools = _allowed(tools, choice == "none", named and [named], request.get("parallel_tool_calls") is False)
    form = request.get("response_format") or {}
    schema = {} if form.get("type") == "json_object" else (form.get("json_schema") or {}).get("schema")
    last = _last(request.get("messages"))
    return Asked(tools, schema, last.get("role") == "tool")


def gemini(request: dict) -> Asked:
    functions = [f for tool in _dicts(request.get("tools")) for f in _dicts(_proto(tool, "functionDeclarations"))]
    schemas = [_proto(f, "parametersJsonSchema") or f.get("parameters") for f in functions]
    tools = [(f.get("name", ""), schema) for f, schema in zip(functions, schemas, strict=True)]
    calling = _proto(_proto(request, "toolConfig") or {}, "functionCallingConfig") or {}
    tools = _allowed(tools, calling.get("mode") == "NONE", _proto(calling, "allowedFunctionNames"))
    config = _proto(request, "generationConfig") or {}
    schema = _proto(config, "responseJsonSchema") or _proto(config, "responseSchema")
    if schema is None and _proto(config, "responseMimeType") == "application/json":
        schema = {}
    parts = _dicts(_last(request.get("contents")).get("parts"))
    return Asked(tools, schema, any(_proto(part, "functionResponse") for part in parts))


def anthropic(request: dict) -> Asked:
    tools = [(tool.get("name", ""), tool.get("input_schema")) for tool in _dicts(request.get("tools"))]
    choice = request.get("tool_choice") or {}
    named = [choice["name"]] if choice.get("type") == "tool" else None
    tools = _allowed(tools, choice.get("type") == "none", named, choice.get("disable_parallel_tool_use"))
    schema = ((request.get("output_config") or {}).get("format") or {}).get("schema")
    blocks = _dicts(_last(request.get("messages")).get("content"))
    return Asked(tools, schema, any(block.get("type") == "tool_result" for block in blocks))


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that fits a JSON schema, or one of Gemini's own with types in capitals."""
    schema = schema if isinstance(schema, dict) else {}
    root = schema if root is None else root
    if depth > DEEPEST:
        return None
    if "$ref" in schema:
        return instance(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema or schema.get("enum"):
        return schema.get("const", next(iter(schema.get("enum") or [None])))
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return instance(options[0], root, depth + 1)
    kind = schema.get("type", "object")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        return {name: instance(part, root, depth + 1) for name, part in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [instance(schema.get("items"), root, depth + 1) for _ in range(max(1, int(schema.get("minItems", 1))))]
    least = schema.get("minimum", 1)
    return {"string": "text", "integer": least, "number": least, "boolean": True}.get(kind)


def _proto(fields: dict, name: str) -> Any:
    """A field by its name, or in snake_case: Google takes both, and its own SDK mixes them."""
    snake = "".join("_" + char.lower() if char.isupper() else char for char in name)
    return fields.get(name, fields.get(snake))


def _resolve(reference: str, root: Any) -> Any:
    for name in reference.removeprefix("#").strip("/").split("/"):
        root = root.get(name, {}) if isinstance(root, dict) else {}
    return root


def _allowed(tools: list, none: bool, named: list[str] | None = None, one: bool | None = False) -> list:
    tools = [] if none else [tool for tool in tools if not named or tool[0] in named]
    return tools[:1] if one else tools


def _dicts(values: Any) -> list[dict]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _last(turns: Any) -> dict:
    return (_dicts(turns) or [{}])[-1]
