"""Gets planned tensors to disk: room is looked for first, and what was written is checked before it gets its name."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from bottega.errors import BottegaError, FileError, Interrupted, SaveError
from bottega.formats.atomic import atomic, atomic_folder, replace_folder, settle_new, settle_new_folder
from bottega.formats.header import BYTES_OF_DTYPE, Header, TensorInfo, shown
from bottega.formats.safetensors import file_order, file_size, read_header, write_stream
from bottega.formats.sniff import unreadable
from bottega.library.buffers import read_buffer, same_bytes
from bottega.library.contents import ELEMENTS, HELD, Reader, ahead, dtype_of, shape_of
from bottega.library.disk import FOLDER_MARK, Stamp, file_stamp
from bottega.spec import Pieces

if TYPE_CHECKING:
    from bottega.runtime.casts import Cast
    from bottega.runtime.tables import Table

Told = Callable[[str, int, int], None]  # (phase, bytes done, bytes in all)


@dataclass(frozen=True)
class Target:
    """A tensor to be written: its dtype, and the stored tensors that make it, or are changed to make it."""

    dtype: str
    pieces: Pieces

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return shape_of(self.pieces)


Plan = Mapping[str, Mapping[str, Target]]  # by file and name; the file "" is the destination itself


def check_destination(sources: Iterable[Path], destination: Path, *, folder: bool, force: bool) -> None:
    """Raise FileError where writing would replace what must not be."""
    if not destination.parent.is_dir():
        raise FileError(destination, "its folder is not there", "make it first")
    if not os.path.lexists(destination):
        if any(destination.resolve().is_relative_to(source.resolve()) for source in sources):
            raise FileError(destination, "it would lie in the model that is read", "choose a place outside of it")
        return
    for source in sources:
        same = destination.exists() and destination.samefile(source)
        if same or source.resolve().is_relative_to(destination.resolve()):
            raise FileError(destination, "it is what is read, or holds it", "choose another name")
    if not force:
        raise FileError(destination, "there is something of that name", "choose another, or have it replaced (force)")
    if folder != destination.is_dir():
        kind = "a folder" if destination.is_dir() else "a file"
        raise FileError(destination, f"it is {kind}, and would not be replaced by its like", "choose another name")
    if destination.is_dir() and not (destination / FOLDER_MARK).is_file():
        raise FileError(destination, "this folder is no model, so it is not replaced", "choose another name")


class Sources:
    """The files that models are read from, and how they were before."""

    def __init__(self, headers: Iterable[Header]) -> None:
        files = {info.file for header in headers for info in header.tensors.values()}
        self._before = {file: _state(file) for file in files}

    def check(self) -> None:
        """Raise FileError if one of them was changed since."""
        for file, before in self._before.items():
            if _state(file) != before:
                raise FileError(file, "was changed while it was read", "try again when it is complete")


def _state(file: Path) -> tuple[Stamp, int]:
    """The stamp of a file and when anything of it was changed, which no program sets back as it may the rest."""
    try:
        status = file.stat()
    except OSError as error:
        raise unreadable(file, error) from error
    return file_stamp(status), status.st_ctime_ns


def target_bytes(target: Target) -> int:
    """How many bytes a tensor will take."""
    return int(prod(target.shape) * BYTES_OF_DTYPE[target.dtype])


# --- writing and checking --------------------------------------------------------------------------------------------


def check_room(destination: Path, plan: Plan, metadata: Mapping[str, str]) -> None:
    """Raise SaveError if the disk has no room for what is planned."""
    needed = sum(file_size(destination / file, declared(targets), metadata) for file, targets in plan.items())
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        what = f"{destination}: {free / 1e6:,.1f} MB are free, and it takes {needed / 1e6:,.1f}"
        raise SaveError(what, "free some space, or choose another disk")


def declared(targets: Mapping[str, Target]) -> list[tuple[str, str, tuple[int, ...]]]:
    """The tensors as a safetensors file declares them, in the order of their bytes."""
    return file_order((name, target.dtype, target.shape) for name, target in targets.items())  # type: ignore[return-value]


def write(
    destination: Path,
    plan: Plan,
    files: Mapping[str, bytes],
    metadata: Mapping[str, str],
    told: Told,
    *,
    sources: Sources,
    force: bool = False,
) -> Mapping[str, int]:
    """Write a file, or a folder of several, and check it against the source before it gets its name.

    It answers with the tensors in which numbers were too large for float8, and how many.
    """
    works = {file: Copy(targets) for file, targets in plan.items()}
    try:
        if "" in works:
            write_file(destination, works[""], metadata, told, os.replace if force else settle_new, sources)
        else:
            replaces = force and destination.is_dir()
            with atomic_folder(destination, replace_folder if replaces else settle_new_folder) as folder:
                _write_folder(folder, works, files, metadata, told, sources)
    except FileExistsError:
        raise taken(destination) from None
    return {name: count for work in works.values() for name, count in work.clipped.items()}


def _write_folder(
    folder: Path,
    works: Mapping[str, Copy],
    files: Mapping[str, bytes],
    metadata: Mapping[str, str],
    told: Told,
    sources: Sources,
) -> None:
    sizes = {file: sum(map(target_bytes, work.targets.values())) for file, work in works.items()}
    before, total = 0, sum(sizes.values())
    for file, work in works.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, work, metadata, partial(_shifted, told, before, total), os.replace, sources)
        before += sizes[file]
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as plain:
            plain.write(content)


def _shifted(told: Told, before: int, total: int, phase: str, done: int, _: int) -> None:
    told(phase, before + done, total)


def taken(destination: Path) -> FileError:
    """The error of a name that was free when we looked."""
    return FileError(destination, "another program was quicker to take this name", "choose another")


def write_file(
    path: Path,
    work: Work,
    metadata: Mapping[str, str],
    told: Told,
    settle: Callable[[Path, Path], None],
    sources: Sources,
    seal: Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Write what the work makes to one file, and let the work check it before `settle` gives it its name.

    Nothing gets it whose `sources` were changed meanwhile: it would be half of the old and half of the new.

    `seal` is asked for the final metadata when all is written; it must not take more bytes than the first.
    """
    rows = declared(work.targets)
    order = [name for name, _, _ in rows]
    total = sum(map(target_bytes, work.targets.values()))
    checker = Comparer(work, order) if work.computes else Follower(work, order)
    with closing(ahead(work.contents(order))) as made, closing(checker):

        def check(written: Path) -> None:
            checker.finish(lambda done: told("checking", done, total))
            header = check_header(written, work.targets, seal() if seal else metadata)
            if dict(header.tensors) != checker.places:
                raise differs("where its tensors are")
            sources.check()

        chunks = _counted(checker.watched(made), partial(told, "writing"), total)
        write_stream(path, rows, chunks, metadata, seal=seal, arrived=checker.arrived, check=check, settle=settle)


Chunks = Generator[tuple[str, memoryview]]


class Work(Protocol):
    """What makes the tensors of a file: `contents` gives their bytes in an order, and may be asked once more.

    What was written is read back and compared: where it `computes` them, with the blocks as they were made; where it
    does nothing but read, with what is read once more.
    """

    targets: Mapping[str, Target]
    computes: bool

    def contents(self, order: Sequence[str]) -> Chunks: ...


class Comparer:
    """Compares what was written with what was computed, a block at a time, as soon as it can be read back.

    Computing takes longer than writing and comparing one after the other, and there is a thread less that would take
    Python's lock from it. `places` are where the tensors are, once the first of them has arrived.
    """

    def __init__(self, work: Work, order: Sequence[str]) -> None:
        self.places: Mapping[str, TensorInfo] = {}
        self._work, self._order = work, order
        self._written: _Written | None = None
        self._done = 0

    def watched(self, blocks: Chunks) -> Chunks:
        """The blocks that are to be written; whoever asks for the next one has written the last."""
        for name, block in blocks:
            yield name, block
            if self._written is not None:
                self._written.compare(name, block)
                self._done += len(block)

    def arrived(self, file: Path, start: int, end: int) -> None:
        """The file, whose tensors begin at `start`, can be read up to `end`."""
        if self._written is None:
            self.places = _places(self._work, self._order, file, start)
            self._written = _Written(file, start)

    def finish(self, told: Callable[[int], None]) -> None:
        """All has been compared by now; raises BottegaError if not. The file may get another name now."""
        self.close()
        told(self._done)
        if self._done != sum(map(target_bytes, self._work.targets.values())):
            raise differs("its end")

    def close(self) -> None:
        """Close the file."""
        if self._written is not None:
            self._written.close()


class Follower:
    """Compares what was written with what the source still holds while the rest is written, in a thread of its own.

    `places` are where the tensors are, once the first of them has arrived.
    """

    def __init__(self, work: Work, order: Sequence[str]) -> None:
        self.places: Mapping[str, TensorInfo] = {}
        self._work, self._order = work, order
        # Queues in C, as in `ahead`. None stands for an end before everything has arrived.
        self._arrivals: SimpleQueue[int | None] = SimpleQueue()
        self._outcome: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._there = self._done = 0
        self._told: Callable[[int], None] = lambda done: None

    def watched(self, blocks: Chunks) -> Chunks:
        """The blocks that are to be written, as they are."""
        return blocks

    def arrived(self, file: Path, start: int, end: int) -> None:
        """The file, whose tensors begin at `start`, can be read up to `end`."""
        if self._thread is None:
            self.places = _places(self._work, self._order, file, start)
            stop = start + sum(map(target_bytes, self._work.targets.values()))
            self._thread = Thread(target=self._check, args=(file, start, stop), name="checker", daemon=True)
            self._thread.start()
        self._arrivals.put(end)
        with suppress(Empty):
            self._raise(self._outcome.get_nowait())

    def finish(self, told: Callable[[int], None]) -> None:
        """Wait until all is compared; raises what was found wrong."""
        self._told = told
        told(self._done)
        self._raise(self._outcome.get())

    def close(self) -> None:
        """End, whether everything has arrived or not."""
        if self._thread is not None:
            self._arrivals.put(None)
            self._thread.join()

    def _raise(self, outcome: BaseException | None) -> None:
        self._outcome.put(outcome)  # for `finish`
        if outcome is not None:
            raise outcome

    def _check(self, file: Path, start: int, end: int) -> None:
        try:
            with (
                closing(ahead(self._work.contents(self._order))) as expected,
                closing(_Written(file, start)) as written,
            ):
                self._compare(expected, written, start, end)
            self._outcome.put(None)
        except BaseException as error:  # it is raised where the file is written
            self._outcome.put(error)

    def _compare(self, expected: Chunks, written: _Written, at: int, end: int) -> None:
        while at < end:
            name, block = next(expected)
            at += len(block)
            self._wait(at)
            written.compare(name, block)
            self._done += len(block)
            self._told(self._done)

    def _wait(self, end: int) -> None:
        while self._there < end:
            there = self._arrivals.get()
            if there is None:
                raise _ended()
            self._there = there


def _places(work: Work, order: Sequence[str], file: Path, at: int) -> dict[str, TensorInfo]:
    """Where in a file the tensors of a work are, of which the first begins at byte `at`."""
    places = {}
    for name in order:
        target, begin = work.targets[name], at
        at += target_bytes(target)
        places[name] = TensorInfo(target.dtype, target.shape, file, begin, at)
    return places


class _Written:
    """A file that is being written, read from where its tensors begin."""

    def __init__(self, file: Path, start: int) -> None:
        self._file = file.open("rb", buffering=0)
        self._file.seek(start)
        self._room = memoryview(bytearray())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def compare(self, name: str, block: memoryview) -> None:
        """Raise BottegaError unless the next bytes are those of the block."""
        if len(self._room) < len(block):
            self._room = memoryview(read_buffer(len(block)))
        found = self._room[: len(block)]
        if not _filled(self._file, found) or not same_bytes(found, block):
            raise differs(f"tensor {shown(name)}")


def _ended() -> Interrupted:
    return Interrupted("the work ended before everything was written")


def _filled(file: io.FileIO, room: memoryview) -> bool:
    """Whether there was as much to read as the memory takes."""
    while room and (count := file.readinto(room)):
        room = room[count:]
    return not room


def roomier(dtype: str) -> str:
    """What to do where a number is too large for a dtype."""
    return {"F16": "choose the dtype bf16", "BF16": "choose the dtype fp32"}.get(dtype, "keep its dtype")


def clipped_note(clipped: Mapping[str, int]) -> tuple[str, ...]:
    """What is to be said of numbers that were too large for float8, by their tensors; nothing if there are none."""
    if not clipped:
        return ()
    count = sum(clipped.values())
    told = "1 number was" if count == 1 else f"{count:,} numbers were"
    more = f" and {len(clipped) - 1} more" if len(clipped) > 1 else ""
    return (f"{told} cut to 448, as float8 holds no larger ones: in {shown(next(iter(clipped)))}{more}",)


class Copy:
    """The tensors as they are in the source, in their new dtypes."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets = targets
        self.clipped: Mapping[str, int] = {}
        self.computes = any(target.dtype != dtype_of(target.pieces) for target in targets.values())

    def contents(self, order: Sequence[str]) -> Chunks:
        """The bytes of the targets, read from the source and cast."""
        with Copier() as copier:
            self.clipped = copier.clipped
            for name in order:
                yield from ((name, chunk) for chunk in copier.chunks(name, self.targets[name]))


class Copier:
    """Gives the bytes of targets as they are in the source, in their new dtypes; a context manager.

    Its blocks are what is written: nothing else is to be read with its reader, which would overwrite them too early.
    `clipped` tells of how many numbers in which tensors only the largest of float8 is left.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._reader = self._open.enter_context(Reader())
        self._casts: dict[tuple[str, str], Table | Cast] = {}
        self.clipped: dict[str, int] = {}

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def chunks(self, name: str, target: Target) -> Iterator[memoryview]:
        """The bytes of one target; FileError if a number is too large for its dtype."""
        stored = dtype_of(target.pieces)
        blocks = self._reader.blocks(target.pieces)
        if stored == target.dtype:
            yield from blocks
            return
        from bottega.runtime.tables import OutOfRange

        if (stored, target.dtype) not in self._casts:
            self._casts[stored, target.dtype] = self._cast(stored, target.dtype)
        cast = self._casts[stored, target.dtype]
        before = cast.clipped
        try:
            yield from map(cast, blocks)
        except OutOfRange as error:
            what = f"{shown(name)} has {error}, and {target.dtype} holds none so large"
            raise FileError(target.pieces[0].file, what, roomier(target.dtype)) from None
        if cast.clipped > before:
            self.clipped[name] = cast.clipped - before

    def _cast(self, stored: str, wanted: str) -> Table | Cast:
        if not cast_by_torch(stored, wanted):
            from bottega.runtime.tables import Table

            return Table(stored, wanted, ELEMENTS, HELD)
        from bottega.runtime.casts import Cast, one_thread

        self._open.enter_context(one_thread())
        return Cast(stored, wanted, ELEMENTS, HELD)


def cast_by_torch(stored: str, wanted: str) -> bool:
    """Whether copying from one dtype to another takes torch, which is long to import."""
    from bottega.runtime.tables import BITS

    return stored != wanted and stored not in BITS


def _counted(chunks: Iterable[tuple[str, memoryview]], told: Callable[[int, int], None], total: int) -> Chunks:
    done = 0
    for name, chunk in chunks:
        yield name, chunk
        done += len(chunk)
        told(done, total)


def check_header(written: Path, targets: Mapping[str, Target], metadata: Mapping[str, str]) -> Header:
    """The header of a file that was written, read back; BottegaError unless it says what it should."""
    header = read_header(written)
    asked = {name: (target.dtype, target.shape) for name, target in targets.items()}
    found = {name: (info.dtype, info.shape) for name, info in header.tensors.items()}
    if found != asked or header.metadata != metadata:
        raise differs("its header")
    return header


def differs(what: str) -> BottegaError:
    """The error of a file that is not what was to be written."""
    return BottegaError(
        f"what was written is not what was read ({what}), so it was thrown away",
        "if the source was not changed meanwhile, this machine's memory or disk is faulty: check them, then try again",
    )
