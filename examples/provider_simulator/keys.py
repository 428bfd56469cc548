"""Keys: what each of them does when it is used, and the quotas that it keeps to."""

import enum
import secrets
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field


class Behaviour(enum.Enum):
    """What a provider says about a key, whatever the request."""

    GOOD = "good"
    MINUTE_SPENT = "minute quota spent"
    DAILY_SPENT = "daily quota spent"
    INVALID = "invalid"
    REVOKED = "revoked"
    """Dead in words that no request can cause."""


@dataclass
class Quota:
    """Limits of one key for each model; None is no limit.

    `minute` and `day` are lengths in real seconds, so that a test can have a minute of one second.
    `stated` says whether answers tell the limits: who learns "5 per minute" from a simulator whose
    minute is a second would rightly believe it, and be far too careful.
    """

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    minute: float = 60.0
    day: float = 86_400.0
    calendar: bool = False
    """Windows begin at multiples of their length, as Google's do; else each use leaves after it."""
    stated: bool = True


@dataclass
class Spent:
    """A limit that is reached: which (`rpm`, `rpd`, `tpm`), its value, seconds until there is room."""

    limit: str
    value: int
    wait: float


@dataclass
class Key:
    """An API key. `label` is what people see of it."""

    slug: str
    secret: str
    label: str
    behaviour: Behaviour = Behaviour.GOOD
    quota: Quota = field(default_factory=Quota)
    used: dict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))
    """Per model: when, and how many tokens. Only what was answered counts."""

    def take(self, model: str, tokens: int, now: float | None = None) -> Spent | None:
        """Counts a request of `model`, or says which limit stands against it."""
        now = time.time() if now is None else now
        quota, used = self.quota, self.used[model]
        while used and self._leaves(used[0][0], quota.day) <= now:
            used.popleft()
        if quota.rpd is not None and len(used) >= quota.rpd:
            return Spent("rpd", quota.rpd, self._leaves(used[0][0], quota.day) - now)
        minute = [(at, count) for at, count in used if self._leaves(at, quota.minute) > now]
        wait = self._leaves(minute[0][0], quota.minute) - now if minute else quota.minute
        if quota.rpm is not None and len(minute) >= quota.rpm:
            return Spent("rpm", quota.rpm, wait)
        if quota.tpm is not None and sum(count for _, count in minute) + tokens > quota.tpm:
            return Spent("tpm", quota.tpm, wait)
        used.append((now, tokens))
        return None

    def left(self, model: str, now: float | None = None) -> int | None:
        """Requests that this minute still has room for."""
        now = time.time() if now is None else now
        if self.quota.rpm is None:
            return None
        minute = [at for at, _ in self.used[model] if self._leaves(at, self.quota.minute) > now]
        return max(0, self.quota.rpm - len(minute))

    def _leaves(self, at: float, window: float) -> float:
        return (at // window + 1) * window if self.quota.calendar else at + window


def new_secret(slug: str) -> str:
    """A key in the look of its provider, random, so that no two tests share one."""
    prefix = {"google-ai-studio": "AIzaSy", "anthropic": "sk-ant-api03-"}.get(slug, "sk-proj-")
    return prefix + secrets.token_hex(16)
