"""Generated tasks: an item is its seed's, its checker accepts right and refuses wrong."""

from __future__ import annotations

import json

import pytest

from broker.paper.kinds.kind import first_json_object, last_integer, stated_answer
from broker.paper.tasks import TASKS, check, generate, recognise

SEEDS = range(400)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_pass_and_every_wrong_one_fails(task: str) -> None:
    for seed in SEEDS:
        item = generate(task, seed)
        assert check(item, item.answer)
        assert check(item, f"Let me think of 3 things first.\nAnswer: {item.answer}")
        assert item.wrong_answers
        for wrong in item.wrong_answers:
            assert not check(item, f"Answer: {wrong}"), (item, wrong)
        assert not check(item, "")
        assert not check(item, "I cannot help with that.")


@pytest.mark.parametrize("task", TASKS)
def test_an_item_is_recognised_in_its_prompt_and_only_when_whole(task: str) -> None:
    item = generate(task, 17)
    assert recognise(f"You are terse.\n{item.prompt}\nThanks!") is item
    assert recognise(item.prompt.replace("a", "e")) is None
    assert recognise(item.prompt[:-10]) is None
    assert recognise("What is the weather in Delft?") is None


@pytest.mark.parametrize("task", TASKS)
def test_difficulty_shows_in_the_length_of_the_text(task: str) -> None:
    items = sorted((generate(task, seed) for seed in SEEDS), key=lambda item: item.difficulty)
    easy, hard = items[:100], items[-100:]
    assert all(0.0 <= item.difficulty <= 1.0 for item in items)
    mean_easy = sum(len(item.prompt) for item in easy) / 100
    mean_hard = sum(len(item.prompt) for item in hard) / 100
    assert mean_hard > 1.3 * mean_easy


def test_items_of_different_seeds_differ() -> None:
    assert len({generate("math", seed).prompt for seed in SEEDS}) == len(SEEDS)
    with pytest.raises(KeyError):
        generate("poetry", 1)


def test_code_items_print_what_they_say() -> None:
    for seed in range(100):
        item = generate("code", seed)
        program = item.prompt.split("```python\n")[1].split("\n```")[0]
        printed: list[int] = []
        exec(program, {"print": printed.append, "range": range})
        assert printed == [int(item.answer)]


def test_a_json_reply_counts_by_its_answer() -> None:
    item = generate("math", 3)
    assert check(item, json.dumps({"answer": int(item.answer)}))
    assert check(item, json.dumps({"answer": item.answer}))
    assert not check(item, json.dumps({"answer": int(item.answer) + 1}))


def test_naming_two_labels_is_wrong() -> None:
    item = generate("classify", 4)
    assert not check(item, f"Answer: {item.answer} or {item.wrong_answers[0]}")


def test_final_answers_are_found_in_prose() -> None:
    assert stated_answer("The answer is 5, so Answer: 7") == "7"
    assert last_integer("no number") is None
    assert last_integer("-12") == -12
    assert first_json_object('Sure: ```json\n{"a": [1]}\n```') == {"a": [1]}
    assert first_json_object("{broken") is None
    assert first_json_object("none") is None
