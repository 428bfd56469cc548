"""`seeds.py FOLDER`: the golden pairs as the fuzz targets' first inputs, a folder for each target."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "translate"


def seeds(golden: dict) -> Iterator[tuple[str, bytes]]:
    """Target and input. The header bytes are those of targets/support: model or shape, cuts."""
    anthropic = golden["target"] == "anthropic"
    request = json.dumps(golden["request"]).encode()
    for model in range(4, 10) if anthropic else range(4):
        yield "request", bytes([model]) + request
    answers = [golden.get("provider_answer"), (golden.get("provider_error") or [None, None])[1]]
    for answer in filter(None, answers):
        body = answer if isinstance(answer, str) else json.dumps(answer)
        yield "answer", bytes([2 + anthropic]) + body.encode()
    if stream := golden.get("provider_stream"):
        text = "\n".join(stream).encode()
        yield "stream", bytes([2 + anthropic, 1]) + text
        yield "sse", text


def main() -> None:
    folder = Path(sys.argv[1])
    for path in sorted(GOLDEN.glob("*.json")):
        for number, (target, data) in enumerate(seeds(json.loads(path.read_text()))):
            place = folder / target / f"{path.stem}-{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


main()
