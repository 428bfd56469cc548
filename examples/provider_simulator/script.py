"""Scripts: what a test says will be answered next, instead of what the keys would say."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .answers import Answer


class Stream:
    """The body of an answer that the test writes piece by piece, from its own thread.

    `Answer(chunks=stream)`, then `send`, and at the end `close` or `reset`.
    """

    _CLOSE, _RESET = object(), object()

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.started = threading.Event()
        """Set when the headers have gone out."""
        self.gone = threading.Event()
        """Set when the reader went away before the end."""

    def send(self, piece: bytes) -> None:
        self._pieces.put(piece)

    def close(self) -> None:
        """The proper end of the answer."""
        self._pieces.put(self._CLOSE)

    def reset(self) -> None:
        """The connection breaks here."""
        self._pieces.put(self._RESET)

    def take(self) -> bytes | None:
        """The next piece; None at the end. Raises queue.Empty for none yet, ConnectionError at a break."""
        piece = self._pieces.get_nowait()
        if piece is self._RESET:
            raise ConnectionError
        return None if piece is self._CLOSE else piece


@dataclass
class Rule:
    """An answer (or what makes one of the request) for the requests that fit."""

    answer: Answer | Callable[[Any], Answer | None]
    key: str | None
    number: int | None
    model: str | None
    when: Callable[[Any], bool] | None
    times: int | None

    def fits(self, request: Any) -> bool:
        return (
            self.times != 0
            and (self.key is None or (request.key is not None and request.key.secret == self.key))
            and (self.number is None or request.number == self.number)
            and (self.model is None or request.model == self.model)
            and (self.when is None or self.when(request))
        )


class Script:
    """Rules in the order in which they were given; the first that fits answers, and is used up by one."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def answer(self, request: Any) -> Answer | None:
        with self._lock:
            rule = next((rule for rule in self._rules if rule.fits(request)), None)
            if rule is None:
                return None
            if rule.times is not None:
                rule.times -= 1
        return rule.answer if isinstance(rule.answer, Answer) else rule.answer(request)
