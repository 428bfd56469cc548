"""The pool's D1 table by hand, around wrangler: for those who have no one-balance Worker.

    python envoy/d1/d1.py create | migrate | import FILE | list | delete-blocked

WHERE=local (the default) works on a database below .cache/d1, WHERE=remote on Cloudflare's, for
which wrangler needs CLOUDFLARE_API_TOKEN and CLOUDFLARE_ACCOUNT_ID (or `wrangler login`) and
D1_DATABASE_ID. Keys are read from a file and handed on in a file: a command line shows in `ps`.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import uuid

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STATE = ROOT / ".cache" / "d1"
NAME = os.environ.get("D1_DATABASE", "one-balance")
WHERE = os.environ.get("WHERE", "local")
USAGE = "usage: d1.py create | migrate | import FILE | list | delete-blocked"


class Problem(Exception):
    """Something that the user can mend; its text says how."""


def wrangler(*arguments: str) -> str:
    """Runs wrangler with a configuration of our own; returns what it prints."""
    STATE.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "one-balance",
        "compatibility_date": "2026-01-01",
        "d1_databases": [
            {
                "binding": "DB",
                "database_name": NAME,
                "database_id": os.environ.get("D1_DATABASE_ID", "local"),
                "migrations_dir": str(HERE / "migrations"),
            }
        ],
    }
    quiet = {
        "CI": "true",
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_SEND_ERROR_REPORTS": "false",
    }
    if WHERE == "local":
        # Nothing is asked outside.
        quiet["CLOUDFLARE_CF_FETCH_ENABLED"] = "false"
    # A file of this run's own, because another run may name another database. Wrangler keeps local databases beside it.
    with tempfile.NamedTemporaryFile("w", prefix="wrangler-", suffix=".json", dir=STATE) as file:
        json.dump(config, file)
        file.flush()
        command = [str(HERE / "node_modules" / ".bin" / "wrangler"), *arguments, "--config", file.name]
        try:
            done = subprocess.run(command, cwd=STATE, env={**os.environ, **quiet}, capture_output=True, text=True)
        except FileNotFoundError:
            raise Problem("wrangler is not installed: use `make d1-…`, which installs it (Node 20 is needed)") from None
    if done.returncode != 0:
        raise Problem(f"wrangler failed: {reason(done.stdout, done.stderr)}")
    return done.stdout


def reason(out: str, error: str) -> str:
    """Why wrangler failed: with --json it says so in JSON, else in a line with colours."""
    try:
        found = json.loads(out[out.index("{") :])["error"]["text"]
    except (ValueError, LookupError, TypeError):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out + error)
        lines = [line for line in plain.splitlines() if "ERROR" in line or "error" in line]
        found = " ".join(lines[:3]) or "run it with WRANGLER_LOG=debug"
    if "CLOUDFLARE_API_TOKEN" in found:
        return "it needs CLOUDFLARE_API_TOKEN, a token with D1: Edit, and CLOUDFLARE_ACCOUNT_ID (or `wrangler login`)"
    return found


def place(database: bool = True) -> str:
    if WHERE not in ("local", "remote"):
        raise Problem("WHERE must be local or remote")
    if WHERE == "remote" and database and not os.environ.get("D1_DATABASE_ID"):
        raise Problem("D1_DATABASE_ID is not set; `make d1-create WHERE=remote` makes a database and prints its id")
    return f"--{WHERE}"


def execute(sql: str) -> list[dict]:
    """Runs SQL; returns the rows of its last statement."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql", dir=STATE if STATE.exists() else None) as file:
        file.write(sql)
        file.flush()
        printed = wrangler("d1", "execute", NAME, place(), "--json", "--yes", "--file", file.name)
    answers = json.loads(printed[printed.index("[") :])
    return answers[-1].get("results", []) if answers else []


def select(sql: str) -> list[dict]:
    """Runs a query that holds no secret. (A remote --file does not return rows.)"""
    printed = wrangler("d1", "execute", NAME, place(), "--json", "--yes", "--command", sql)
    return json.loads(printed[printed.index("[") :])[-1].get("results", [])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def masked(key: str) -> str:
    """As the filter shows a key: the first and last four characters of a long one."""
    if len(key) >= 20:
        return f"{key[:4]}…{key[-4:]}"
    return f"…{key[-2:]}" if len(key) >= 12 else "…"


def providers() -> set[str]:
    """The names that a row's provider may have: the filter's table, and own servers' in PROVIDER_BASE_URLS."""
    table = (ROOT / "src" / "provider" / "mod.rs").read_text()
    aliases = [name for names in re.findall(r"aliases: &\[(.+?)\]", table) for name in re.findall(r'"(.+?)"', names)]
    own = [entry.partition("=")[0].strip() for entry in os.environ.get("PROVIDER_BASE_URLS", "").split(";")]
    return {*re.findall(r'\bopenai\("([a-z0-9-]+)"', table), *aliases, *own} - {"", "ai-gateway"}


def create() -> None:
    if place(database=False) == "--local":
        print("A local database comes into being with `make d1-migrate`; nothing to create.")
        return
    print(wrangler("d1", "create", NAME).strip())
    print("Put its database_id into D1_DATABASE_ID.")


def migrate() -> None:
    wrangler("d1", "migrations", "apply", NAME, place())
    print(f"The table `keys` is there in the {WHERE} database {NAME}.")


def import_keys(path: str) -> None:
    """Each line is `provider key [remark]`; blank lines and those with # are passed over."""
    if not path:
        raise Problem("say which file: make d1-import FILE=keys.txt")
    try:
        # Some editors of Windows begin a file with a mark.
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Problem(f"{path} is not UTF-8") from None
    rows, known = [], providers()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split(None, 2)
        if len(words) < 2:
            raise Problem(f"{path}, line {number}: must be `provider key [remark]`; nothing was imported")
        if words[0] not in known:
            # It may be the key, so it is not shown.
            own = "a server of your own must be in PROVIDER_BASE_URLS here, too"
            raise Problem(f"{path}, line {number}: its first word is no provider ({own}); nothing was imported")
        if not (words[1].isascii() and words[1].isprintable()):
            raise Problem(f"{path}, line {number}: what stands for the key cannot be one; nothing was imported")
        remark = quoted(words[2].strip()) if len(words) > 2 else "NULL"
        rows.append(f"({quoted(str(uuid.uuid4()))}, {quoted(words[1])}, {quoted(words[0])}, {remark})")
    if not rows:
        raise Problem(f"{path} has no keys in it")
    before = count()
    statements = [
        f"INSERT OR IGNORE INTO keys (id, key, provider, remark) VALUES {', '.join(rows[start : start + 100])};"
        for start in range(0, len(rows), 100)
    ]
    execute("\n".join(statements))
    added = count() - before
    print(f"{added} keys imported, {len(rows) - added} were there already.")


def count(condition: str = "1") -> int:
    return select(f"SELECT count(*) AS n FROM keys WHERE {condition}")[0]["n"]


def list_keys() -> None:
    rows = select("SELECT id, provider, status, key, remark FROM keys ORDER BY provider, status, created_at, id")
    for row in rows:
        # What is somebody else's text does not command the terminal.
        remark = "".join(sign if sign.isprintable() else "?" for sign in row["remark"] or "")
        print(f"{row['provider']:<18} {row['status']:<8} {row['id']:<36} {masked(row['key'])}  {remark}".rstrip())
    print(f"{len(rows)} keys.")


def delete_blocked() -> None:
    blocked = count("status = 'blocked'")
    select("DELETE FROM keys WHERE status = 'blocked'")
    print(f"{blocked} blocked keys deleted.")


def main(arguments: list[str]) -> int:
    commands = {"create": create, "migrate": migrate, "list": list_keys, "delete-blocked": delete_blocked}
    try:
        if arguments[:1] == ["import"] and len(arguments) == 2:
            import_keys(arguments[1])
        elif len(arguments) == 1 and arguments[0] in commands:
            commands[arguments[0]]()
        else:
            print(USAGE, file=sys.stderr)
            return 2
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
