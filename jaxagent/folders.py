"""Folders of ours: known by a marker, held by one lock, replaced as a whole and never emptied.

A folder is a run, a grid of runs or a store when the marker in it says so. What has no marker is
another's: it is refused, with what was found, before anything in it is touched. A replacement is
made beside the old folder and changes places with it in one step; the old one is deleted only after
the new one stands, and stays where it holds files that we did not write. A folder that is a
symbolic link, or holds one, is refused; parents may be links.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jaxagent.files import write_json

KIND = "jaxagent"  # the key of a manifest that says what its folder is
MANIFEST, INDEX, LOCK, DONE = "manifest.json", "index.json", ".jaxagent-lock", "done.json"
NEEDED = {"experiment", "source", "preset", "command", "config", "fingerprint"}  # keys of a manifest
NEW = ".jaxagent-new-"  # begins the name of a folder that is not yet in its place
# Top-level files of a run; `*` stays within a name. A run's stages list their files themselves.
OF_RUN = (
    LOCK,
    MANIFEST,
    f"{MANIFEST}.partial",
    "metrics.jsonl",
    "metrics.jsonl.partial",
    "summary.json",
    "summary.json.partial",
    "report.html",
    "pictures/*.gif",
    "pictures/*.png",
    "policies/*/params.npz",
    "policies/*/policy.json",
    "tensorboard/events.*",
    "tensorboard/lane-*/events.*",
)
OF_STORE = (INDEX, "shard_*.npz")
OF_CHECKPOINTS = ("step_*.json", "step_*.json.bad", "step_*.json.partial")
NO_WORK = {LOCK, MANIFEST, f"{MANIFEST}.partial", "report.html"}  # what a run has before it works
LISTED = 4  # names that a refusal lists
RENAME_EXCHANGE, HERE = 2, -100  # of renameat2


class NotOurs(ValueError):
    """A folder that must not or cannot be written; says what was found and what to do instead."""


class Locked(RuntimeError):
    """Another process writes this folder."""


def kind_of(folder: Path) -> str | None:
    """What a folder is by its marker, "run", "grid" or "store"; None where it is not ours."""
    manifest = _json(folder / MANIFEST)
    if manifest.get(KIND) in ("run", "grid") and manifest.keys() >= NEEDED:
        return manifest[KIND]
    return "store" if _is_index(_json(folder / INDEX)) else None


def enclosing(path: Path) -> Path | None:
    """The nearest run, grid or store that a path lies in."""
    place = (path if path.name not in ("", "..") else path.resolve()).parent.resolve()
    return next((outer for outer in (place, *place.parents) if kind_of(outer)), None)


def check_new(folder: Path, kind: str, *, replace: bool = False, within: Path | None = None) -> None:
    """Raise `NotOurs` unless `folder` may become a new folder of a kind.

    It may where it is absent or empty or, with `replace`, where it is of this kind already; never
    inside another run, grid or store, save for the one `within` which the caller works.
    """
    with _told(folder):
        _refuse_link(folder)
        outer = enclosing(folder)
        if outer is not None and (within is None or outer != within.resolve()):
            raise NotOurs(f"{folder}: lies inside {outer}, a {kind_of(outer)}; choose another --out.")
        if folder.exists() and not folder.is_dir():
            raise NotOurs(f"{folder}: got a file, expected a folder; choose another --out.")
        _check_writable(folder)
        if not _is_occupied(folder):
            return
    found = kind_of(folder)
    if found != kind:
        raise NotOurs(
            f"{folder}: got {_described(folder)}, expected an empty folder, none, or a {kind} that jaxagent "
            "wrote; nothing was touched. Choose another --out, or move it away."
        )
    if not replace:
        going_on = f"continue it with `jaxagent resume {folder}`, " if kind == "run" else ""
        raise NotOurs(
            f"{folder}: holds a {kind} already; {going_on}choose another --out, or pass --overwrite."
        )


def check_ours(folder: Path, *kinds: str) -> None:
    """Raise `NotOurs` unless `folder` is of one of these kinds and leads nowhere else by a link."""
    with _told(folder):
        _refuse_link(folder)
        if kind_of(folder) not in kinds:
            wanted = " or ".join(kinds)
            raise NotOurs(
                f"{folder / MANIFEST}: not the manifest of a {wanted} (found {_described(folder)}); pass the "
                f"folder that the {wanted} printed at its start."
            )
        for path in _walk(folder):
            _refuse_link(path)


@contextmanager
def hold(folder: Path, *kinds: str, within: Path | None = None) -> Iterator[None]:
    """Hold a folder of one of these kinds, alone, to write in it, and the grid that it is a cell of.

    `within` is the grid that the caller holds already. Where the block fails and there is still no
    work in the folder, what it replaced comes back. Raises `NotOurs`, `Locked`.
    """
    check_ours(folder, *kinds)
    outer = enclosing(folder)
    with ExitStack() as held:
        if outer is not None and (within is None or outer != within.resolve()):
            held.enter_context(lock(outer))
        held.enter_context(lock(folder))
        check_ours(folder, *kinds)
        held.enter_context(_coming_back(folder))
        yield


@contextmanager
def begin(
    folder: Path, manifest: Mapping[str, Any], *, replace: bool = False, within: Path | None = None
) -> Iterator[None]:
    """Make a new run or grid (by `manifest["jaxagent"]`) and hold it until the block ends.

    A folder that it replaces is aside until `finish`, and comes back where the block fails before
    it has done any work. Raises `NotOurs` and `Locked`, and then has touched nothing.
    """
    kind = manifest[KIND]
    check_new(folder, kind, replace=replace, within=within)
    with ExitStack() as held:
        before = held.enter_context(ExitStack())  # locks of what is there
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            before.enter_context(lock(folder))
        check_new(folder, kind, replace=replace, within=within)  # again: now it stays so
        if _is_occupied(folder):
            if not _has_work(folder) and _bring_back(folder):  # what it replaced is the one to keep
                before.enter_context(lock(folder))
            held.enter_context(_replaced(folder, manifest))
            before.close()  # whoever goes on with it where it is now, keeps it: see `_discard`
        else:
            write_json(folder / MANIFEST, dict(manifest))
        yield


@contextmanager
def _replaced(folder: Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Put a new folder in the place of an old one, whose lock the caller holds."""
    with _told(folder):
        aside = _sibling(folder, f"{folder.name}.replaced-")
    with ExitStack() as held:
        try:
            before = _json(folder / MANIFEST).get("replaces", [])
            write_json(aside / MANIFEST, {**manifest, "replaces": [*before, aside.name]})
            held.enter_context(lock(aside))
            with _told(folder):
                _exchange(folder, aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # still the new one
            raise
        held.enter_context(_coming_back(folder))
        yield


@contextmanager
def _coming_back(folder: Path) -> Iterator[None]:
    """Where the block fails before any work was done, what the folder replaced comes back."""
    try:
        yield
    except BaseException:
        if not _has_work(folder):
            if _bring_back(folder):
                print(f"{folder}: what was there before is back.", file=sys.stderr)
        else:
            for name in _json(folder / MANIFEST).get("replaces", []):
                print(f"{folder.with_name(name)}: kept until {folder} is finished.", file=sys.stderr)
        raise


def _bring_back(folder: Path) -> bool:
    """Undo a replacement whose folder holds no work; False where there is nothing to bring back."""
    asides = [place for place in _asides(folder) if kind_of(place)]
    if not asides:
        return False
    _exchange(folder, asides[-1])
    _discard(asides[-1], is_held=True)
    return True


def finish(folder: Path) -> None:
    """Delete what a run or grid replaced, now that it stands; a copy with strange files stays."""
    manifest = _json(folder / MANIFEST)
    if "replaces" not in manifest:
        return
    for place in _asides(folder):
        _discard(place)
    del manifest["replaces"]
    write_json(folder / MANIFEST, manifest)


def _asides(folder: Path) -> list[Path]:
    """Folders that a run or grid replaced, oldest first; only names that we give."""
    place = folder.resolve()
    names = _json(folder / MANIFEST).get("replaces", [])
    return [
        place.with_name(name)
        for name in names
        if Path(name).name == name and name.startswith(f"{place.name}.replaced-")
    ]


@contextmanager
def replacement(folder: Path, kind: str, within: Path | None = None) -> Iterator[Path]:
    """A new folder, empty and beside `folder`, which it becomes when the block ends well.

    Raises `NotOurs` where `folder` is there and is not of this kind, or lies in another run than
    `within`.
    """
    check_new(folder, kind, replace=True, within=within)
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = _sibling(folder, f"{NEW}{folder.name}-")
    try:
        yield new
        check_new(folder, kind, replace=True, within=within)
        is_old = _is_occupied(folder)
        _exchange(folder, new) if is_old else os.replace(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if is_old:
        _discard(new)


def sweep(place: Path) -> None:
    """Delete what a killed `replacement` left in a folder that the caller holds."""
    for path in place.glob(f"{NEW}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the only process in a folder; the kernel frees it with the process.

    Raises `Locked` where another is, `NotOurs` where it cannot be locked at all.
    """
    path = folder / LOCK
    replaced = Locked(f"{folder}: was replaced by another process just now; try again.")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError as error:
        raise replaced from error
    except OSError as error:
        raise NotOurs(f"{path}: cannot be opened to lock the folder ({error.strerror}).") from error
    with open(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(
                f"{folder}: in use by {file.read().strip() or 'another process'}; "
                "wait for it, stop it, or choose another --out."
            ) from error
        except OSError as error:
            raise NotOurs(
                f"{path}: cannot be locked here ({error.strerror}); choose another disk."
            ) from error
        if not _is_still(path, file.fileno()):
            raise replaced
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _exchange(folder: Path, other: Path) -> None:
    """Let two folders change places: in one step where the system can, or else in three."""
    with suppress(OSError, AttributeError):
        names = os.fsencode(folder), os.fsencode(other)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(HERE, names[0], HERE, names[1], RENAME_EXCHANGE) == 0:
            return
    gap = _sibling(folder, f"{NEW}{folder.name}-")
    os.replace(folder, gap)
    try:
        os.replace(other, folder)
    except OSError:
        os.replace(gap, folder)
        raise
    os.replace(gap, other)


def _discard(folder: Path, *, is_held: bool = False) -> None:
    """Delete a folder of ours, unless it holds what is not, or another process is in it."""
    kind = kind_of(folder)
    if kind is None or folder.is_symlink():
        return
    try:
        strange = _strange(folder, kind)
        if strange:
            told = f"it holds what jaxagent did not write: {_shortened(strange, folder)}"
            print(f"{folder}: kept, as {told}.", file=sys.stderr)
            return
        with ExitStack() as held:
            if not is_held and kind != "store":
                for place in (folder, *(p for p in folder.glob("cells/*") if kind_of(p))):
                    held.enter_context(lock(place))
            shutil.rmtree(folder)
    except (OSError, Locked, NotOurs) as error:
        print(f"{folder}: kept, as it cannot be deleted ({error}).", file=sys.stderr)


def _strange(folder: Path, kind: str) -> list[Path]:
    """Files and links in a folder of ours that are not."""
    if kind == "store":
        return [
            p for p in _walk(folder) if p.is_symlink() or (p.is_file() and not _matches(p, folder, OF_STORE))
        ]
    known = _of_stages(folder)
    cells = [place for place in folder.glob("cells/*") if kind == "grid" and kind_of(place) == "run"]
    found = [path for cell in cells for path in _strange(cell, "run")]
    for path in _walk(folder):
        if any(path.is_relative_to(cell) for cell in cells):
            continue
        is_known = path in known or _matches(path, folder, OF_RUN)
        if path.is_symlink() or (path.is_file() and not is_known):
            found.append(path)
    return found


def _of_stages(run: Path) -> set[Path]:
    """Files that the stages of a run wrote: artefacts, as their markers list them, and checkpoints."""
    known = set()
    for marker in (run / "stages").rglob(DONE):
        known |= {marker, *(marker.parent / name for name in _json(marker).get("artefacts", {}))}
    for place in (run / "stages").rglob("checkpoints"):
        known |= {p for p in place.iterdir() if _matches(p, place, OF_CHECKPOINTS)}
        known |= {p for step in place.glob("step_*") if step.is_dir() for p in _walk(step)}
    for place in (run / "stages").rglob(f"{NEW}*"):
        known |= set(_walk(place))
    return known


def _matches(path: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a path in a folder is named by a pattern, part by part."""
    parts = path.relative_to(folder).parts
    split = (pattern.split("/") for pattern in patterns)
    return any(len(s) == len(parts) and all(map(fnmatchcase, parts, s)) for s in split)


def _has_work(folder: Path) -> bool:
    """Whether a run or grid, or a cell of it, holds more than it begins with."""
    return any(
        p.is_symlink() or (p.is_file() and p.name not in NO_WORK and p.stat().st_size) for p in _walk(folder)
    )


def _sibling(folder: Path, prefix: str) -> Path:
    """A new empty folder beside `folder`, under a name that nobody has."""
    parent = folder.parent if folder.name else folder.resolve().parent
    place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    like = folder if folder.exists() else parent
    place.chmod(like.stat().st_mode & 0o777)  # mkdtemp's 0700 would hide it from a group
    return place


def _is_occupied(folder: Path) -> bool:
    ignored = {LOCK, f"{MANIFEST}.partial"}  # of a process that was killed before it began
    return folder.exists() and any(p.name not in ignored for p in folder.iterdir())


def _check_writable(folder: Path) -> None:
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise NotOurs(f"{place}: cannot be written into; choose another --out.")


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the system refuses (a name too long, no permission), as `NotOurs`."""
    try:
        yield
    except OSError as error:
        name = f"{str(folder)[:80]}..." if error.errno == errno.ENAMETOOLONG else folder
        raise NotOurs(f"{name}: {error.strerror}; choose another --out.") from error


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
    if not folder.exists():
        aside = sorted(folder.parent.glob(f"{NEW}{folder.name}-*")) + sorted(
            folder.parent.glob(f"{folder.name}.replaced-*")
        )
        return f"nothing, but {_shortened(aside, folder.parent)} beside it" if aside else "nothing"
    if not folder.is_dir():
        return "a file"
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
