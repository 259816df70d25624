"""Folders of ours: known by a marker, held by one lock, replaced as a whole and never emptied.

A folder is a run, a grid of runs or a store when the marker in it says so. What has no marker is
another's: it is refused, with what was found, before anything in it is touched. A replacement is
made beside the old folder, which is moved aside and deleted only after the new one stands; where
the old one holds files that we did not write, it stays. Symbolic links are never followed.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jaxagent.files import write_json

KIND = "jaxagent"  # the key of a manifest that says what its folder is
MANIFEST, INDEX, LOCK = "manifest.json", "index.json", ".jaxagent-lock"
# What each kind of folder consists of; `*` crosses folders. Anything else is another's.
OURS = {
    "run": (
        LOCK,
        MANIFEST,
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "*.partial",
        "stages/*",
        "pictures/*.gif",
        "pictures/*.png",
        "policies/*/params.npz",
        "policies/*/policy.json",
        "tensorboard/events.*",
    ),
    "store": (INDEX, "shard_*.npz"),
}
OURS["grid"] = (*OURS["run"], *(f"cells/*/{pattern}" for pattern in OURS["run"]))
LISTED = 4  # names that a refusal lists


class NotOurs(ValueError):
    """A folder that must not be written; says what it holds and what to do instead."""


class Locked(RuntimeError):
    """Another process writes this folder."""


def kind_of(folder: Path) -> str | None:
    """What a folder is by its marker, "run", "grid" or "store"; None where it is not ours."""
    kind = _json(folder / MANIFEST).get(KIND)
    if kind in ("run", "grid"):
        return kind
    return "store" if _is_index(_json(folder / INDEX)) else None


def check_new(folder: Path, kind: str, *, replace: bool = False, within: Path | None = None) -> None:
    """Raise `NotOurs` unless `folder` may become a new folder of a kind.

    It may where it is absent or empty or, with `replace`, where it is of this kind already; never
    inside another run, grid or store, save for the one `within` which the caller works.
    """
    _refuse_link(folder)
    place = folder.parent.resolve()
    for outer in (place, *place.parents):
        if within is not None and outer == within.resolve():
            break
        if kind_of(outer):
            raise NotOurs(f"{folder}: lies inside {outer}, a {kind_of(outer)}; choose another --out.")
    if folder.exists() and not folder.is_dir():
        raise NotOurs(f"{folder}: got a file, expected a folder; choose another --out.")
    if not _is_occupied(folder):
        return
    found = kind_of(folder)
    if found != kind:
        raise NotOurs(
            f"{folder}: got {_described(folder)}, expected an empty folder, none, or a {kind} that "
            "jaxagent wrote; nothing was touched. Choose another --out, or move it away."
        )
    if not replace:
        going_on = f"continue it with `jaxagent resume {folder}`, " if kind == "run" else ""
        raise NotOurs(
            f"{folder}: holds a {kind} already; {going_on}choose another --out, or pass --overwrite."
        )


def check_ours(folder: Path, *kinds: str) -> None:
    """Raise `NotOurs` unless `folder` is of one of these kinds and leads nowhere else by a link."""
    _refuse_link(folder)
    if kind_of(folder) not in kinds:
        wanted = " or ".join(kinds)
        raise NotOurs(
            f"{folder / MANIFEST}: not the manifest of a {wanted} (found {_described(folder)}); "
            f"pass the folder that the {wanted} printed at its start."
        )
    for path in _walk(folder):
        _refuse_link(path)


@contextmanager
def hold(folder: Path, *kinds: str) -> Iterator[None]:
    """Hold a folder of one of these kinds, alone, to write in it. Raises `NotOurs`, `Locked`."""
    check_ours(folder, *kinds)
    with lock(folder):
        check_ours(folder, *kinds)
        yield


@contextmanager
def begin(
    folder: Path, manifest: Mapping[str, Any], *, replace: bool = False, within: Path | None = None
) -> Iterator[None]:
    """Make a new run or grid (by `manifest["jaxagent"]`) and hold it until the block ends.

    A folder that it replaces is moved aside until `finish`, and comes back where the block fails
    before it has done any work. Raises `NotOurs` and `Locked`, and then has touched nothing.
    """
    kind = manifest[KIND]
    check_new(folder, kind, replace=replace, within=within)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        check_new(folder, kind, replace=replace, within=within)  # again: now it stays so
        if not _is_occupied(folder):
            write_json(folder / MANIFEST, dict(manifest))
            yield
            return
        with _replaced(folder, manifest):
            yield


@contextmanager
def _replaced(folder: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    new, aside = _sibling(folder, "new"), _sibling(folder, "replaced")
    before = _json(folder / MANIFEST).get("replaces", [])
    write_json(new / MANIFEST, {**manifest, "replaces": [*before, aside.name]})
    with lock(new):
        _swap(folder, new, aside)
        try:
            yield
        except BaseException:
            if not _has_work(folder):
                os.replace(folder, new)
                os.replace(aside, folder)
                shutil.rmtree(new)
                print(f"{folder}: the {manifest[KIND]} that was there is back.", file=sys.stderr)
            raise


def finish(folder: Path) -> None:
    """Delete what a run or grid replaced, now that it stands; a copy with strange files stays."""
    manifest = _json(folder / MANIFEST)
    if "replaces" not in manifest:
        return
    for name in manifest.pop("replaces"):
        if not name.startswith(f"{folder.name}.replaced-") or Path(name).name != name:
            continue
        _discard(folder.with_name(name))
    write_json(folder / MANIFEST, manifest)


@contextmanager
def replacement(folder: Path, kind: str) -> Iterator[Path]:
    """A new folder, empty and beside `folder`, which it becomes when the block ends well.

    Raises `NotOurs` where `folder` is there and is not of this kind.
    """
    check_new(folder, kind, replace=True, within=folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = _sibling(folder, "new")
    try:
        yield new
        if folder.exists():
            check_new(folder, kind, replace=True, within=folder.parent)
            aside = _sibling(folder, "replaced")
            _swap(folder, new, aside)
            _discard(aside)
        else:
            os.replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def sweep(place: Path) -> None:
    """Delete what a killed `replacement` left in a folder that the caller holds."""
    for path in [*place.glob("*.new-????????"), *place.glob("*.replaced-????????")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the only process in a folder; the kernel frees it with the process. Raises `Locked`."""
    path = folder / LOCK
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Locked(
                f"{folder}: in use by {file.read().strip() or 'another process'}; "
                "wait for it, stop it, or choose another --out."
            ) from error
        if not _is_still(path, file.fileno()):
            raise Locked(f"{folder}: was replaced by another process just now; try again.")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _swap(folder: Path, new: Path, aside: Path) -> None:
    """Move `folder` onto the empty `aside` and `new` to its place, or leave all as it was."""
    os.replace(folder, aside)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(aside, folder)
        raise


def _discard(folder: Path) -> None:
    """Delete a folder of ours, unless it holds what is not."""
    kind = kind_of(folder)
    if kind is None or folder.is_symlink():
        return
    strange = [p for p in _walk(folder) if _is_strange(p, folder, kind)]
    if not strange:
        shutil.rmtree(folder)
        return
    print(
        f"{folder}: kept, as it holds what jaxagent did not write: {_shortened(strange, folder)}.",
        file=sys.stderr,
    )


def _is_strange(path: Path, folder: Path, kind: str) -> bool:
    if path.is_symlink():
        return True
    name = path.relative_to(folder).as_posix()
    return path.is_file() and not any(fnmatchcase(name, p) for p in OURS[kind])


def _has_work(folder: Path) -> bool:
    """Whether a run or grid holds results, however small."""
    log = folder / "metrics.jsonl"
    return (
        any(p.is_file() for p in (folder / "stages").rglob("*"))
        or (folder / "cells").exists()
        or (log.exists() and log.stat().st_size > 0)
    )


def _sibling(folder: Path, role: str) -> Path:
    """A new empty folder beside `folder`, under a name that nobody has."""
    place = Path(tempfile.mkdtemp(prefix=f"{folder.name}.{role}-", dir=folder.parent))
    like = folder if folder.exists() else folder.parent
    place.chmod(like.stat().st_mode & 0o777)  # mkdtemp's 0700 would hide it from a group
    return place


def _is_occupied(folder: Path) -> bool:
    return folder.exists() and any(p.name != LOCK for p in folder.iterdir())


def _is_still(path: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise NotOurs(
            f"{path}: a symbolic link to {os.readlink(path)}, which is not followed; pass the "
            "folder itself, and keep runs free of links."
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder; links are named, not entered."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root) / name for name in (*folders, *files))


def _described(folder: Path) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir():
        return "nothing" if not folder.exists() else "a file"
    kind = kind_of(folder)
    if kind:
        return f"a {kind}"
    if _json(folder / MANIFEST).keys() >= {"experiment", "preset", "fingerprint"}:
        return "a run of an older jaxagent, which this one cannot continue"
    return _shortened(sorted(folder.iterdir()), folder) or "nothing"


def _shortened(paths: list[Path], folder: Path) -> str:
    names = [str(p.relative_to(folder)) for p in paths]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none to read."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    return {}


def _is_index(content: Mapping[str, Any]) -> bool:
    """Whether JSON is the index of a store: shards, each with its file and hash."""
    shards = content.get("shards")
    is_list = isinstance(shards, list) and shards and isinstance(content.get("version"), int)
    return bool(is_list) and all(isinstance(s, dict) and {"file", "sha256"} <= set(s) for s in shards)
