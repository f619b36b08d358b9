"""The Python blocks and the SQL of a page: one process, forked, whose names the blocks share."""

from __future__ import annotations

import io
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from commands import SECONDS, Printed, settle

from forked import start


class Session:
    """A process that runs code in a folder; it starts with the first code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = None
        self.ours: Any = None

    def __call__(self, language: str, code: str, name: str) -> Printed:
        """Run code, whose tracebacks call it `name`."""
        if self.process is None:
            self.ours, theirs = Pipe()
            self.process = start(_serve, theirs, str(self.folder))
            theirs.close()
        self.ours.send((language, code, name))
        if not self.ours.poll(SECONDS):
            self.process.kill()
            raise TimeoutError(f"{name} took longer than {SECONDS} seconds")
        return self.ours.recv()

    def close(self) -> None:
        if self.process is not None:
            self.ours.close()  # the other end ends by that
            self.process.join(10)
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, folder: str) -> None:
    settle(folder, {"PYTHONPATH": folder})
    names: dict[str, Any] = {"__name__": "__main__"}
    sql = None
    while True:
        try:
            language, code, name = connection.recv()
        except EOFError:
            return
        out, err, status = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                if language == "sql":
                    sql = sql or _database()
                    _query(sql, code)
                else:
                    exec(compile(code, name, "exec"), names)
            except BaseException as error:
                traceback.print_exc()
                status = error.code if isinstance(error, SystemExit) else 1  # type: ignore[assignment]
        connection.send(Printed(int(status or 0), out.getvalue(), err.getvalue()))


def _database() -> Any:
    import duckdb

    return duckdb.connect()


def _query(database: Any, code: str) -> None:
    """SQL as DuckDB's shell takes it: statements, and files to read."""
    for line in code.splitlines():
        if line.startswith(".read "):
            database.execute(Path(line.removeprefix(".read ").strip()).read_text("utf-8"))
    rest = "\n".join(line for line in code.splitlines() if not line.startswith("."))
    found = database.sql(rest) if rest.strip() else None
    sys.stdout.write(f"{found}\n" if found is not None else "")
