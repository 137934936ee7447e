"""Takes the guards of the acceptance checks out of a copy, to see tests fail: `python tests/guards.py [NUMBER ...]`.

A check that would pass without its guard proves nothing. Where two guards overlap, both are taken out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "pyproject.toml")
PATIENCE = 600.0  # seconds for the tests of one guard


class Out(NamedTuple):
    """A piece of a guard: the file below `src/bottega`, its text, which is there once, and what takes its place."""

    file: str
    text: str
    instead: str


class Guard(NamedTuple):
    """What keeps the promise of a check, how it is taken out, and the tests of which each must fail then."""

    check: int
    what: str
    outs: tuple[Out, ...]
    tests: tuple[str, ...]


WITHOUT_SUBJECT = {
    5: "is a ratio of times: `bottega bench pickles` measures it, and no test asserts a speed",
    11: "no language model runs here yet, so that no chat template is ever expanded",
}

ACCEPTANCE = "test_acceptance_30.py::"
PICKLED, SAFETENSORS, GGUF = "formats/pickled/__init__.py", "formats/safetensors.py", "formats/gguf.py"
ORIGIN, GATE = "api/access/origin.py", "api/access/gate.py"
PICTURES = "families/_stable_diffusion/pictures.py"
DOWNLOAD, FOREMAN = "library/sources/download.py", "jobs/foreman.py"

FOREIGN_READER = Out(ORIGIN, "if origin is not None and origin != own:", "if False:")
FOREIGN_WRITER = Out(ORIGIN, "elif origin != own:", "elif False:")
TWO_WAYS = Out(GATE, "_FORBIDDEN_IN_PATH.search(once) or _FORBIDDEN_IN_PATH.search(unquote_to_bytes(once))", "False")
EXPOSURE = Out("cli/serve.py", "if beyond and not allowed:", "if False:")
PUBLIC = Out(
    "library/sources/addresses.py",
    "if not is_public(address) and not (allow_loopback and address.is_loopback):",
    "if False:",
)

GUARDS = (
    Guard(
        1,
        "what a pickle calls is noted and not called",
        (
            Out(
                "formats/pickled/machine.py",
                "            return Node(function, args)\n",
                "            return getattr(__import__(function.module), function.name)(*args)\n",
            ),
        ),
        (f"{ACCEPTANCE}test_1_2_no_payload_runs_and_each_is_refused[19]",),
    ),
    Guard(
        1,
        "no line of the project unpickles",
        (Out("formats/garbage.py", "import gc\n", "import gc\nimport pickle\n"),),
        ("test_no_unpickling.py::test_nothing_unpickles",),
    ),
    Guard(
        2,
        "a pickle that names what is dangerous is refused",
        (Out(PICKLED, "if names or isinstance(failure, Poisonous):", "if False:"),),
        (f"{ACCEPTANCE}test_1_2_no_payload_runs_and_each_is_refused",),
    ),
    Guard(
        2,
        "an archive that lies about itself is refused",
        (Out("formats/pickled/archive.py", "        if flags & _FLAGS:\n", "        if False:\n"),),
        ("test_hostile.py::test_verdict[37-flags_of_encryption]",),
    ),
    Guard(
        3,
        "a name of a library that is not known to be harmless is dangerous",
        (
            Out(
                "formats/pickled/names.py",
                "return DANGEROUS if known or (module, name) in _CALLS_ANYTHING else UNUSUAL",
                "return UNUSUAL",
            ),
        ),
        ("test_hostile.py::test_verdict[19-os_system]",),
    ),
    Guard(
        4,
        "a tensor begins where its pickle says",
        (
            Out(
                PICKLED,
                "start, end = first + tensor.start, first + tensor.end",
                "start, end = first, first + tensor.end - tensor.start",
            ),
        ),
        ("test_pickled.py::test_what_torch_saves_is_read_to_the_bit",),
    ),
    Guard(
        6,
        "what an archive has packed is unpacked",
        (
            Out(
                PICKLED,
                "return 0, Packed(member.start, member.end, member.size)",
                "return member.start, None",
            ),
        ),
        ("test_pickled.py::test_archives_that_were_packed_again_are_read_to_the_bit",),
    ),
    Guard(
        7,
        "a safetensors file is as long as its header says",
        (Out(SAFETENSORS, "if missing := max(0, data + end - size):", "if missing := 0:"),),
        ("test_safetensors.py::test_every_truncation_of_a_file_says_that_it_is_cut_or_what_is_left",),
    ),
    Guard(
        7,
        "an archive has an end",
        (Out("formats/pickled/archive.py", "    if found < 0:\n", "    if False:\n"),),
        ("test_pickled.py::test_half_a_download_is_cut_short",),
    ),
    Guard(
        7,
        "a GGUF file is as long as its header says",
        (Out(GGUF, "if infos and data + position > source.size:", "if False:"),),
        ("test_gguf.py::test_a_file_that_is_cut_anywhere_says_so",),
    ),
    Guard(
        8,
        "a header has a longest length",
        (Out(SAFETENSORS, "if length > MAX_HEADER:", "if False:"),),
        (
            f"{ACCEPTANCE}test_8_9_absurd_headers_are_refused_at_once[a header of 2^63 bytes]",
            "test_safetensors.py::test_broken_files_are_refused_as_by_the_reference_library",
        ),
    ),
    Guard(
        8,
        "every byte belongs to one tensor",
        (Out(SAFETENSORS, "if start != position:", "if False:"),),
        (
            "test_safetensors.py::test_broken_files_are_refused_as_by_the_reference_library[overlap]",
            "test_safetensors.py::test_broken_files_are_refused_as_by_the_reference_library[hole]",
        ),
    ),
    Guard(
        8,
        "a key is there once",
        (Out("formats/strictjson.py", "if len(result) != len(pairs):", "if False:"),),
        (
            "test_safetensors.py::"
            "test_files_with_two_meanings_or_none_are_refused_though_the_reference_library_reads_them",
        ),
    ),
    Guard(
        8,
        "a type that is none is refused",
        (Out(SAFETENSORS, "    if bits is None:\n", "    if bits is None:\n        bits = 32\n    if False:\n"),),
        (f"{ACCEPTANCE}test_8_9_absurd_headers_are_refused_at_once[a type that is none]",),
    ),
    Guard(
        9,
        "a list is no longer than its file",
        (
            Out(GGUF, "MAX_ITEMS = 8_000_000", "MAX_ITEMS = 1 << 70"),
            Out(GGUF, "MAX_METADATA = 256 << 20", "MAX_METADATA = 1 << 70"),
            Out(
                GGUF,
                "        if count > self.size - self.position:\n            raise self._cut()\n        self._at +=",
                "        self._at +=",
            ),
        ),
        (
            f"{ACCEPTANCE}test_8_9_absurd_headers_are_refused_at_once[an array of 2^63 numbers]",
            "test_gguf.py::test_a_file_of_43_bytes_takes_no_memory",
        ),
    ),
    Guard(
        10,
        "only data is installed",
        (Out("formats/folder/install.py", " and _is_data(last)", ""),),
        ("test_get.py::test_folders_are_filtered_by_what_may_be_there",),
    ),
    Guard(
        10,
        "a folder that asks for code is told of",
        (Out("formats/folder/files.py", '_CODE_KEYS = ("auto_map", "custom_pipeline", ', "_CODE_KEYS = ("),),
        (
            "test_folder.py::test_configs_that_ask_for_code_are_refused",
            "test_folder.py::test_weights_of_a_model_that_asks_for_code_are_read_without_it",
        ),
    ),
    Guard(
        10,
        "while a model is loaded nothing unpickles or starts a program",
        (Out("runtime/guard.py", "sys.addaudithook(_watch)", "pass"),),
        (
            "test_guard.py::test_it_stops_what_runs_code[unpickle]",
            "test_guard.py::test_it_stops_what_runs_code[os.system]",
            "test_guard.py::test_it_is_armed_while_the_engine_loads",
        ),
    ),
    Guard(
        10,
        "while a model is loaded torch loads nothing",
        (Out("runtime/guard.py", '            _refuse("call torch.load")\n', "            pass\n"),),
        ("test_guard.py::test_it_stops_what_runs_code[torch.load]",),
    ),
    Guard(
        12,
        "others are let in with keys only",
        (EXPOSURE,),
        ("test_serve.py::test_others_are_not_listened_to_without_a_key",),
    ),
    Guard(
        12,
        "this machine alone is listened to",
        (EXPOSURE, Out("settings.py", 'host: str = "127.0.0.1"', 'host: str = "0.0.0.0"')),
        ("test_serve.py::test_a_server_from_its_link_to_its_end",),
    ),
    Guard(
        13,
        "a foreign name is refused",
        (
            Out(
                "api/access/host.py",
                "        raise Refusal(\n            421,",
                '        return f"http://{host}"\n        raise Refusal(\n            421,',
            ),
        ),
        (
            f"{ACCEPTANCE}test_13_a_foreign_name_reaches_no_route",
            "test_access.py::test_a_foreign_name_is_misdirected",
        ),
    ),
    Guard(
        14,
        "another site's page changes nothing",
        (FOREIGN_WRITER,),
        (
            f"{ACCEPTANCE}test_14_another_site_changes_nothing_with_a_valid_cookie",
            "test_access.py::test_another_sites_page_can_change_nothing",
        ),
    ),
    Guard(
        14,
        "a cookie alone changes nothing",
        (Out(ORIGIN, "        if with_cookie:\n", "        if False:\n"),),
        ("test_access.py::test_a_cookie_alone_changes_nothing",),
    ),
    Guard(
        14,
        "JSON is taken by its type only",
        (Out(GATE, "    if kind in limits.JSON_TYPES:\n", "    if True:\n"),),
        (
            f"{ACCEPTANCE}test_14_another_site_changes_nothing_with_a_valid_cookie",
            "test_access.py::test_only_json_is_taken",
        ),
    ),
    Guard(
        15,
        "another site's page opens no WebSocket",
        (FOREIGN_READER, FOREIGN_WRITER),
        (
            f"{ACCEPTANCE}test_15_no_page_of_another_site_opens_a_websocket",
            "test_access.py::test_no_websocket_is_opened",
        ),
    ),
    Guard(
        15,
        "there is no WebSocket",
        (Out(GATE, "        if upgrade:\n", "        if False:\n"),),
        ("test_access.py::test_no_websocket_is_opened",),
    ),
    Guard(
        16,
        "an address that can be read in two ways is refused",
        (TWO_WAYS,),
        ("test_access.py::test_an_address_that_can_be_read_in_two_ways_is_refused",),
    ),
    Guard(
        16,
        "an id is no path",
        (
            TWO_WAYS,
            Out("api/native/inputs.py", '    "/{sha256}",\n', '    "/{sha256:path}",\n'),
            Out("api/native/shapes.py", 'PathParameter(pattern=r"^[0-9a-f]{64}$", ', "PathParameter("),
        ),
        (f"{ACCEPTANCE}test_16_no_id_is_a_path",),
    ),
    Guard(
        16,
        "no link among the outputs is followed",
        (Out("gallery/output.py", 'os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)', "os.O_RDONLY"),),
        (f"{ACCEPTANCE}test_16_a_link_among_the_outputs_leads_nowhere",),
    ),
    Guard(
        17,
        "no type is guessed",
        (
            Out("api/access/headers.py", '    (b"x-content-type-options", b"nosniff"),\n', ""),
            Out("api/native/pictures.py", '"X-Content-Type-Options": "nosniff", ', ""),
        ),
        (
            f"{ACCEPTANCE}test_17_what_is_no_picture_is_not_kept_and_pictures_are_inert",
            "test_access.py::test_every_answer_is_sealed",
        ),
    ),
    Guard(
        17,
        "nothing runs in what users sent",
        (Out("api/access/headers.py", "frame-ancestors 'none'; sandbox\"", "frame-ancestors 'none'\""),),
        (
            f"{ACCEPTANCE}test_17_what_is_no_picture_is_not_kept_and_pictures_are_inert",
            "test_access.py::test_every_answer_is_sealed",
        ),
    ),
    Guard(
        17,
        "only a picture is kept as one",
        (Out("engine/inputs.py", "    check_picture(path)\n", ""),),
        (f"{ACCEPTANCE}test_17_what_is_no_picture_is_not_kept_and_pictures_are_inert",),
    ),
    Guard(
        18,
        "a name that is no text is told as one",
        (Out("api/native/models.py", 'return name.encode(errors="replace").decode()', "return name"),),
        (f"{ACCEPTANCE}test_18_no_name_of_a_file_breaks_anything",),
    ),
    Guard(
        18,
        "names and prompts are text to the page",
        (
            Out("web/static/dom.js", "element.textContent = plainly(value)", "element.innerHTML = plainly(value)"),
            Out(
                "web/static/dom.js",
                "element.append(child instanceof Node ? child : plainly(child));",
                "if (child instanceof Node) element.append(child); else element.innerHTML += plainly(child);",
            ),
        ),
        (f"{ACCEPTANCE}test_18_names_and_prompts_are_shown_as_text",),
    ),
    Guard(
        19,
        "only public addresses are connected to",
        (PUBLIC,),
        (
            "test_client.py::test_nothing_else_is_connected_to[https://127.0.0.1:{port}/]",
            f"{ACCEPTANCE}test_19_no_address_leads_into_the_servers_own_network[True]",
        ),
    ),
    Guard(
        19,
        "no picture is fetched unless the settings say so",
        (PUBLIC, Out("api/pictures.py", "if not settings.fetch_pictures:", "if False:")),
        (f"{ACCEPTANCE}test_19_no_address_leads_into_the_servers_own_network[False]",),
    ),
    Guard(
        20,
        "a key goes to its own site only",
        (Out("library/sources/client.py", 'sent.pop("Authorization", None)', "pass"),),
        ("test_client.py::test_a_key_goes_to_its_site_and_no_further",),
    ),
    Guard(
        20,
        "a log holds no secret",
        (
            Out(
                "api/logs.py",
                'return _SECRETS.sub("[secret]", text) if any(mark in folded for mark in _MARKS) else text',
                "return text",
            ),
        ),
        ("test_serve.py::test_the_log_redacts_what_looks_like_a_secret",),
    ),
    Guard(
        21,
        "a picture has a largest size",
        (Out("formats/media.py", "if width * height > MAX_PIXELS:", "if False:"),),
        (f"{ACCEPTANCE}test_21_a_small_file_of_many_pixels_is_refused_in_little_memory",),
    ),
    Guard(
        22,
        "what a killed server had in hand is taken up",
        (Out(FOREMAN, "        take_up(self.queue)\n", ""),),
        ("test_foreman.py::test_a_new_server_takes_up_what_a_killed_one_left_and_ends_its_workers",),
    ),
    Guard(
        23,
        "what a killed worker had in hand waits again",
        (
            Out(FOREMAN, "self._owed[id] = partial(queue.requeue, id, why, counts=counts)", "pass"),
            Out(FOREMAN, "if worker == self._who and job.id not in self._working:", "if False:"),
        ),
        (
            "test_foreman.py::test_a_worker_that_crashes_costs_its_job_an_attempt_and_nobody_else_anything[abort-SIGABRT]",
        ),
    ),
    Guard(
        24,
        "half a file is taken away",
        (Out("formats/atomic.py", "            temporary.unlink(missing_ok=True)", "            pass"),),
        ("test_save.py::test_a_name_that_was_only_reserved_is_given_back",),
    ),
    Guard(
        24,
        "a full disk is told as one",
        (Out(DOWNLOAD, "            raise _disk_error(part, error) from error\n", "            raise\n"),),
        ("test_download.py::test_a_full_disk_is_an_error_and_what_arrived_goes_on_later",),
    ),
    Guard(
        25,
        "a download goes on where it broke off",
        (
            Out(
                DOWNLOAD,
                "return max(state.safe, stretches) if state.safe <= there else stretches",
                "return 0",
            ),
        ),
        (
            "test_download.py::test_what_broke_off_goes_on_where_it_was",
            "test_download.py::test_the_next_command_goes_on_from_the_very_byte",
        ),
    ),
    Guard(
        25,
        "other bytes than promised are thrown away",
        (
            Out(
                DOWNLOAD,
                "if broken := _broken_promise({**state.expected, **file.hashes}, digests, part):",
                'if broken := "":',
            ),
        ),
        ("test_get.py::test_other_bytes_than_promised_are_thrown_away",),
    ),
    Guard(
        26,
        "a full queue puts off what comes",
        (Out("api/errors.py", '    "QueueFull": 429,\n', ""),),
        ("test_native_jobs.py::test_a_full_queue_says_when_to_come_back",),
    ),
    Guard(
        26,
        "a queue has a longest length",
        (Out("jobs/queue.py", "if waiting >= self.cap:", "if False:"),),
        ("test_queue.py::test_a_full_queue_takes_no_more_and_each_owner_has_a_share",),
    ),
    Guard(
        26,
        "no client waits for what others ask for",
        (
            Out(GATE, "                    await self._turns.come()\n", "                    pass\n"),
            Out(
                "api/intake.py",
                "        loop = asyncio.get_running_loop()\n        asked = _Asked(",
                "        return self._workshop.put([prepare()])[0]\n        asked = _Asked(",
            ),
        ),
        (f"{ACCEPTANCE}test_26_a_flood_of_jobs_is_taken_or_put_off_and_nothing_waits_for_it",),
    ),
    Guard(
        27,
        "a job that is cancelled is told to stop",
        (Out(FOREMAN, 'self._pipe.send({"do": "cancel", "job": id})', "pass"),),
        ("test_foreman.py::test_cancelling_takes_effect_at_once_and_the_worker_goes_on",),
    ),
    Guard(
        28,
        "what a server that ends has in hand waits again",
        (Out(FOREMAN, "            queue.requeue(id, why, counts=False)\n", "            pass\n"),),
        ("test_foreman.py::test_stopping_puts_back_what_runs_and_ends_the_workers",),
    ),
    Guard(
        28,
        "a signal ends a server in order",
        (Out("api/signals.py", "numbers = [signal.SIGINT, signal.SIGTERM]", "numbers = [signal.SIGINT]"),),
        (f"{ACCEPTANCE}test_28_a_server_that_is_ended_while_it_works_goes_on_at_the_next_start",),
    ),
    Guard(
        29,
        "a home has one server",
        (Out("jobs/lock.py", "if not _claimed(handle) or _held(handle):", "if False:"),),
        ("test_queue.py::test_a_home_has_one_server_and_the_other_is_told_where_it_is",),
    ),
    Guard(
        30,
        "a picture that is none is never saved",
        (Out("engine/run.py", "            if isinstance(picture, BrokenPicture):\n", "            if False:\n"),),
        ("test_run.py::test_a_picture_that_stays_broken_fails_and_leaves_nothing",),
    ),
    Guard(
        30,
        "numbers that are none, and a single colour, are no picture",
        (
            Out(PICTURES, "if not torch.isfinite(latent).all():", "if False:"),
            Out(PICTURES, "if not torch.isfinite(pixels).all():", "if False:"),
            Out(PICTURES, "if all(low == high for low, high in picture.getextrema()):", "if False:"),
        ),
        ("test_make.py::test_what_a_broken_network_makes_is_an_error_and_no_picture",),
    ),
    Guard(
        30,
        "all noise comes from the seed",
        (
            Out(
                "diffusion/noise.py",
                "torch.Generator(device).manual_seed(seed)",
                "torch.Generator(device); self.generator.seed()",
            ),
        ),
        (f"{ACCEPTANCE}test_30_the_same_seed_gives_the_same_file",),
    ),
)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the tests need, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="bottega-guards-") as folder:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        yield Path(folder)


def take_out(copy: Path, outs: Sequence[Out]) -> None:
    """Take a guard out of a copy; ValueError if it isn't there just once."""
    for out in outs:
        path = copy / "src" / "bottega" / out.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(out.text)) != 1:
            raise ValueError(f"{out.file}: {out.text!r} is there {count} times")
        path.write_text(text.replace(out.text, out.instead), encoding="utf-8")


def run(copy: Path, tests: Sequence[str], patience: float = PATIENCE) -> tuple[int, list[str], str]:
    """How pytest ends on these tests of a copy, which of them failed, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    command += [f"tests/{test}" for test in tests]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=copy, env=environment, **options) as process:  # type: ignore[call-overload]
        try:
            said, _ = process.communicate(timeout=patience)
        except BaseException:  # servers that a test has started end with it
            os.killpg(process.pid, signal.SIGKILL)
            raise
    failed = [line.removeprefix("FAILED tests/") for line in said.splitlines() if line.startswith("FAILED ")]
    return process.returncode, failed, said


def verdict(guard: Guard) -> str:
    """What is wrong with the tests of a guard: that they don't miss it; empty if each fails without it."""
    with copied() as copy:
        take_out(copy, guard.outs)
        try:
            code, failed, said = run(copy, guard.tests)
        except subprocess.TimeoutExpired:
            return f"STILL RUNS after {PATIENCE:g} s"
    passed = [test for test in guard.tests if not any(line.startswith(test) for line in failed)]
    # What could not be collected or set up, or took pytest along, has shown nothing.
    if (
        code not in (0, 1)
        or (passed and "\nERROR tests/" in said)
        or not re.search(r"\d+ (passed|failed)\b.* in ", said)
    ):
        return f"BROKEN (pytest ended with {code})\n{said[-3000:]}"
    return f"STILL PASSES: {', '.join(passed)}" if passed else ""


def main(numbers: Sequence[int]) -> int:
    """Take out the guards of these checks, or of all; 1 if any test doesn't miss its guard."""
    guards = [guard for guard in GUARDS if not numbers or guard.check in numbers]
    tests = list(dict.fromkeys(test for guard in guards for test in guard.tests))
    print(f"{len(tests)} tests with all guards in place ...", flush=True)
    with copied() as copy:
        code, _, said = run(copy, tests, 10 * PATIENCE)  # else a failure would say nothing
    if code:
        print(said[-6000:])
        return 1
    survived = 0
    for guard in guards:
        began = time.monotonic()
        wrong = verdict(guard)
        survived += bool(wrong)
        print(
            f"{guard.check:2} {guard.what}: {wrong or 'failed as it should'} ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    for number in numbers or range(1, 31):
        if number in WITHOUT_SUBJECT:
            print(f"{number:2} {WITHOUT_SUBJECT[number]}")
    return 1 if survived else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has started it in the background
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main([int(word) for word in sys.argv[1:]]))
    except KeyboardInterrupt:
        sys.exit(130)
