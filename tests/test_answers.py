"""What a database answered is kept for its version alone, and not without end."""

from __future__ import annotations

import threading

import pytest

from bottega.formats.answers import Answers


@pytest.fixture
def answers() -> Answers:
    return Answers(most=3)


def test_a_question_is_asked_once_for_a_version(answers: Answers) -> None:
    assert answers.of(1, "how many", lambda: 1) == 1
    assert answers.of(1, "how many", lambda: 2) == 1
    assert answers.of(2, "how many", lambda: 2) == 2
    assert answers.of(2, "how many", lambda: 3) == 2
    assert answers.of(2, "how few", lambda: 3) == 3
    assert answers.of(1, "how many", lambda: 4) == 4, "an older version is another one"


def test_nothing_is_kept_of_what_is_being_written(answers: Answers) -> None:
    assert answers.of(None, "how many", lambda: 1) == 1
    assert answers.of(None, "how many", lambda: 2) == 2
    assert answers.of(7, "how many", lambda: 3) == 3


def test_an_answer_that_is_an_error_is_none(answers: Answers) -> None:
    with pytest.raises(ZeroDivisionError):
        answers.of(1, "how many", lambda: 1 // 0)
    assert answers.of(1, "how many", lambda: 1) == 1


def test_what_was_asked_for_longest_ago_is_forgotten_first(answers: Answers) -> None:
    for question in ("one", "two", "three"):
        answers.of(1, question, lambda: "first")
    assert answers.of(1, "one", lambda: "again") == "first"
    answers.of(1, "four", lambda: "first")
    assert answers.of(1, "one", lambda: "again") == "first"
    assert answers.of(1, "two", lambda: "again") == "again"


def test_who_looks_at_what_is_written_takes_no_answer_from_others(answers: Answers) -> None:
    answers.of(1, "how many", lambda: 1)
    assert answers.of(None, "how many", lambda: 2) == 2
    assert answers.of(1, "how many", lambda: 3) == 1


def test_many_threads_are_given_what_is_kept(answers: Answers) -> None:
    answers.of(1, "how many", lambda: 1)
    asked = []

    def look() -> None:
        for _ in range(3000):
            answers.of(1, "how many", lambda: asked.append(1))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == []
