"""Which fields of an experiment its smoke run reads: `python tests/slow/reads.py NAME FOLDER`.

Prints the others, one a line. Every field of the preset is followed through `dataclasses.replace` to the
copies that the code makes of it. Reading it to check, hash, print or copy it is no reading. What is replaced
by an equal value is not seen as replaced.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

PLUMBING = ("<string>", "dataclasses.py", "config/record.py", "config/checks.py")
CHECKS = ("check", "__post_init__")
origins: dict[tuple[int, str], str] = {}  # (id of a configuration, field) -> path in the preset
read: set[str] = set()
alive: list = []  # or ids would be used again
followed: set[type] = set()


def is_plumbing(frame) -> bool:
    """Whether a field is read to be checked, hashed, printed or copied, and not to be obeyed."""
    if frame.f_code.co_filename.endswith(PLUMBING):
        return True
    while frame is not None and (
        "/config/" in frame.f_code.co_filename or frame.f_code.co_filename == "<string>"
    ):
        if frame.f_code.co_name in CHECKS or frame.f_code.co_filename.endswith(PLUMBING[2:]):
            return True
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name in CHECKS


def follow(cls: type) -> None:
    """Note what is read of a class's instances, and where their copies come from."""
    if cls in followed:
        return
    followed.add(cls)
    names, get, make = {field.name for field in dataclasses.fields(cls)}, cls.__getattribute__, cls.__init__

    def getattribute(self, name):
        path = origins.get((id(self), name)) if name in names else None
        if path is not None and path not in read and not is_plumbing(sys._getframe(1)):
            read.add(path)
        return get(self, name)

    def initialise(self, *args, **kwargs):
        make(self, *args, **kwargs)
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not dataclasses.replace.__code__:
            frame = frame.f_back if frame.f_code.co_filename.endswith(PLUMBING) else None
        before = frame.f_locals.get("obj") if frame is not None else None
        if type(before) is type(self):
            alive.append(self)
            for name in names:
                same = vars(self).get(name) is vars(before).get(name)
                if same and (id(before), name) in origins:
                    origins[(id(self), name)] = origins[(id(before), name)]

    cls.__getattribute__, cls.__init__ = getattribute, initialise


def copied(value):
    """A deep copy, so that a default that several fields share is not one object."""
    if dataclasses.is_dataclass(value):
        new = object.__new__(type(value))
        for field in dataclasses.fields(value):
            object.__setattr__(new, field.name, copied(vars(value)[field.name]))
        return new
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(copied, value))
    return value


def note(config, path: str = "") -> None:
    """Remember where every field of a configuration stands."""
    alive.append(config)
    follow(type(config))
    for field in dataclasses.fields(config):
        value, place = vars(config)[field.name], f"{path}{field.name}"
        inner = value if isinstance(value, tuple) else ()
        if dataclasses.is_dataclass(value):
            note(value, f"{place}.")
        elif any(map(dataclasses.is_dataclass, inner)):
            for number, one in enumerate(inner):
                note(one, f"{place}.{number}.")
        else:
            origins[(id(config), field.name)] = place


def main(name: str, folder: str) -> None:
    """Run the smoke preset of an experiment and print the fields that were not read."""
    from experiments import cli
    from experiments.cli import session

    start = session.start

    def starting(room, preset, config, *args, **kwargs):
        config = copied(config)
        note(config)
        return start(room, preset, config, *args, **kwargs)

    session.start = starting
    code = cli.main(["run", name, "--preset", "smoke", "--out", folder])
    known = set(origins.values())
    print(f"exit {code}, {len(known)} fields", *(f"unread {path}" for path in sorted(known - read)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
