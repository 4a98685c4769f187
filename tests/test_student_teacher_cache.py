"""A teacher's most probable tokens on disk: equal to the living teacher, resumed, never stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_student_objectives import FORMATTING, ROWS, assert_same_gradients, gradients
from tiny_student import review_rows, tiny_tokenizer, untied_model

from student.batches import EncodedExamples, collate, encode
from student.errors import CheckpointError, InputError
from student.examples import Example, read_examples
from student.teacher_cache import cache_teacher, cached_teacher, example_keys
from student.white_box import live_teacher, white_box_loss

VOCABULARY = 192


def encoded_rows(rows: list[Example]) -> tuple[EncodedExamples, list[str]]:
    encoded = encode(rows, tiny_tokenizer(), FORMATTING, rationales=False)
    return encoded, example_keys(encoded, [row.id for row in rows])


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_with_the_whole_vocabulary_it_equals_the_living_teacher(kind: str, tmp_path: Path) -> None:
    model, teacher = untied_model(), untied_model(seed=7)
    encoded, keys = encoded_rows(ROWS)
    place = cache_teacher(teacher, encoded, keys, tmp_path, top_k=VOCABULARY, batch_size=2)
    batch = collate(encoded, [2, 0, 1], pad_token_id=0)
    cached = white_box_loss(model, batch, teacher=cached_teacher(place, keys), kind=kind)
    live = white_box_loss(model, batch, teacher=live_teacher(teacher), kind=kind)
    assert cached.total.item() == pytest.approx(live.total.item(), abs=1e-5)
    assert_same_gradients(gradients(model, cached.total), gradients(model, live.total))


def test_with_fewer_tokens_it_is_a_lower_bound_and_the_rest_is_one_outcome(tmp_path: Path) -> None:
    model, teacher = untied_model(), untied_model(seed=7)
    encoded, keys = encoded_rows(ROWS)
    batch = collate(encoded, range(3), pad_token_id=0)
    found = []
    for k in (1, 20, 191):
        place = cache_teacher(teacher, encoded, keys, tmp_path, top_k=k)
        told = cached_teacher(place, keys)(batch, batch.label_targets)
        assert told.log_tail is not None
        mass = told.log_probs.exp().sum(-1) + told.log_tail.exp()
        torch.testing.assert_close(mass, torch.ones_like(mass))
        loss = white_box_loss(model, batch, teacher=cached_teacher(place, keys), soft_weight=1.0)
        found.append(loss.total.item())
    whole = white_box_loss(
        model, batch, teacher=live_teacher(teacher), soft_weight=1.0
    ).total.item()
    assert found[0] < found[1] < found[2] <= whole + 1e-6
    assert len(list(tmp_path.iterdir())) == 3  # one folder for each k


def test_only_what_is_new_or_changed_is_asked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("student.teacher_cache.ROWS_PER_FILE", 3)
    teacher = untied_model(seed=7)
    rows, _ = read_examples(review_rows())
    asked: list[int] = []
    teacher.get_encoder().register_forward_hook(lambda _, __, out: asked.append(len(out[0])))
    seen: list[Any] = []

    def ask(examples: list[Example]) -> tuple[Path, EncodedExamples, list[str]]:
        asked.clear()
        encoded, keys = encoded_rows(examples)
        place = cache_teacher(
            teacher, encoded, keys, tmp_path, top_k=4, batch_size=2, on_progress=seen.append
        )
        return place, encoded, keys

    ask(rows[:5])
    assert sum(asked) == 5
    assert seen[-1] == {"done": 5, "total": 5}
    place, encoded, keys = ask(rows)
    assert sum(asked) == 3
    ask(list(reversed(rows)))
    assert asked == []
    changed = [*rows[:7], Example(input="A lovely lamp.", target="negative", id=rows[7].id)]
    new_place, new_encoded, new_keys = ask(changed)
    assert (sum(asked), new_place) == (1, place)
    assert new_keys[7] != keys[7]
    assert new_keys[7].startswith(f"{rows[7].id}/")
    # Read in any order, it is what the teacher says of these rows now.
    batch = collate(new_encoded, [7, 0, 3], pad_token_id=0)
    told = cached_teacher(place, new_keys)(batch, batch.label_targets)
    live = live_teacher(teacher)(batch, batch.label_targets)
    assert told.token_ids is not None
    torch.testing.assert_close(told.log_probs, live.log_probs.gather(1, told.token_ids))
    old = collate(encoded, [7], pad_token_id=0)  # the changed row's old answer is still there too
    assert len(cached_teacher(place, keys)(old, old.label_targets).log_probs) == 2


def test_another_teacher_or_temperature_never_answers_from_the_same_files(tmp_path: Path) -> None:
    encoded, keys = encoded_rows(ROWS)
    places = {
        cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4),
        cache_teacher(untied_model(seed=8), encoded, keys, tmp_path, top_k=4),
        cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4, temperature=1.0),
        cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4, precision="bf16"),
    }
    assert len(places) == 4
    again = cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4)
    assert again in places


def test_files_have_the_stated_layout_and_no_pickle(tmp_path: Path) -> None:
    encoded, keys = encoded_rows(ROWS)
    place = cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4)
    [file] = place.iterdir()
    with safe_open(file, framework="pt") as stored:
        tokens = sum(len(target) for target in encoded.label_targets)
        shapes = {name: stored.get_tensor(name).shape for name in stored.keys()}  # noqa: SIM118
        types = {name: stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118
    assert shapes == {"token_ids": (tokens, 4), "log_probs": (tokens, 4), "log_tail": (tokens,)}
    assert types["token_ids"] == torch.int32
    assert types["log_probs"] == types["log_tail"] == torch.float32


def test_what_is_missing_cut_short_or_not_asked_is_named(tmp_path: Path) -> None:
    encoded, keys = encoded_rows(ROWS)
    place = cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4)
    with pytest.raises(InputError, match=r"1 of 4 rows are not in the teacher's cache .*'new/0'"):
        cached_teacher(place, [*keys, "new/0"])
    batch = collate(encoded, [0], pad_token_id=0)
    with pytest.raises(InputError, match="knows the labels of encoded examples, nothing else"):
        cached_teacher(place, keys)(batch, batch.label_targets.clone())
    [file] = place.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"cannot be read: .*delete that file"):
        cached_teacher(place, keys)


def test_a_full_disk_leaves_no_part(tmp_path: Path, monkeypatch: Any) -> None:
    def no_space(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("student.teacher_cache.save_file", no_space)
    encoded, keys = encoded_rows(ROWS)
    with pytest.raises(CheckpointError, match=r"No space left.*make top_k smaller"):
        cache_teacher(untied_model(seed=7), encoded, keys, tmp_path, top_k=4)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
