"""What each text has to obey on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from transduce.problem import Problem
from transduce.recipe.use import predict, stream
from transduce.search import Beam, Greedy, Sample, SearchBlueprint
from transduce.search.constrain import ForbiddenBlueprint, Own, RequiredBlueprint, read_own
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

TEXTS = ["abc", "bcd", "", "dab", "a cab", "abcd" * 5]
OWN = [
    Own(required=("dab", ("bb", "cc"))),
    None,
    Own(prefix="a"),
    Own(prefix="ca"),
    Own(prefix="bb", required=("d",)),
    Own(required=("acd",)),
]


@pytest.fixture(scope="module")
def model() -> Transducer:
    return tiny.transducer(tiny.MODELS["transformer"])


@pytest.mark.parametrize("search", [Greedy(), Beam(width=3), Sample(samples=2)], ids=str)
def test_each_answer_obeys_its_own(model: Transducer, search: SearchBlueprint) -> None:
    answers = model(TEXTS, search, own=OWN)
    for answer, own in zip(answers, OWN, strict=True):
        if own and answer.source:
            assert answer.text.startswith(own.prefix)
            for one in own.required:
                assert any(
                    word in answer.text for word in ((one,) if isinstance(one, str) else one)
                )
    assert answers[1].text == model("bcd", search).text
    assert answers[2].text == ""


def test_what_others_obey_changes_no_answer(model: Transducer) -> None:
    for search in (Greedy(), Beam(width=3)):
        together = model(TEXTS, search, own=OWN)
        alone = [model([text], search, own=[own])[0] for text, own in zip(TEXTS, OWN, strict=True)]
        assert [one.text for one in together] == [one.text for one in alone]
        streamed = list(model.predict(iter(TEXTS), search, own=iter(OWN), ahead=2))
        assert [one.text for one in together] == [one.text for one in streamed]


def test_they_are_those_of_all_and_hold_with_them(model: Transducer) -> None:
    same = model(TEXTS, Beam(width=3), own=[Own(required=("dab", ("bb", "cc")))] * len(TEXTS))
    wanted = [RequiredBlueprint(phrases=("dab", ("bb", "cc")))]
    assert [one.text for one in same] == [
        one.text for one in model(TEXTS, Beam(width=3), constraints=wanted)
    ]
    both = model(TEXTS, own=OWN, constraints=[ForbiddenBlueprint(phrases=("da",))])
    assert (both[0].text, both[0].finished) == ("", False) or "dab" not in both[0].text
    assert all("da" not in answer.text for answer in both)


def test_they_are_as_many_as_texts_and_can_be_written(model: Transducer) -> None:
    with pytest.raises(Problem, match="own: 1 for 2 texts"):
        model(["a", "b"], own=[None])
    with pytest.raises(Problem, match="own: there is none for text 2"):
        list(model.predict(["a", "b"], own=[None], ahead=1))
    with pytest.raises(Problem, match="own: there are more than texts, which are 1"):
        list(model.predict(["a"], own=[None, None]))
    with pytest.raises(Problem, match="text 2: 'ξ' holds what the model has no symbol for"):
        model(["a", "b"], own=[None, Own(required=("a", "ξ"))])


def test_words_that_cannot_be_written_are_found_in_their_line(
    model: Transducer, tmp_path: Path
) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prefix": "a"}\n\n{"required": ["ξ"]}\n', encoding="utf-8")
    bundle = tiny.bundle(tiny.MODELS["transformer"])
    bundle.save(tmp_path / "model", tensors(bundle.model), "# a card\n")
    with pytest.raises(Problem, match=r"own\.jsonl:3: 'ξ' holds what the model has no symbol for"):
        list(predict(tmp_path / "model", ["a", "b", "c"], [f"own={file}"], show=Show()))


def test_a_file_has_a_line_for_each_line(model: Transducer, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(
        "\n".join(one.model_dump_json() if one else "" for one in OWN) + "\n", encoding="utf-8"
    )
    assert list(read_own(file)) == OWN
    bundle = tiny.bundle(tiny.MODELS["transformer"])
    bundle.save(tmp_path / "model", tensors(bundle.model), "# a card\n")
    show = Show()
    lines = list(predict(tmp_path / "model", TEXTS, [f"own={file}"], show=show))
    assert lines == [answer.text for answer in model(TEXTS, own=OWN)]
    with pytest.raises(Problem, match="a matter of predict"):
        list(stream(tmp_path / "model", TEXTS, ["search=greedy", f"own={file}"], show=show))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"requird": ["a"]}', "jsonl:3: requird: no such key; did you mean 'required'?"),
        (b'{"required": "a"}', "jsonl:3: required: expected a list"),
        (b'{"required": [[]]}', "jsonl:3: required"),
        (b"required: [a]", "jsonl:3: expected JSON"),
        (b'{"prefix": "a"', "jsonl:3"),
        (b'{"prefix": "\xff"}', "jsonl:3: not UTF-8"),
    ],
)
def test_mistakes_have_a_line(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_bytes(b"{}\n\n" + line + b"\n{}\n")
    with pytest.raises(Problem, match=message):
        list(read_own(file))
    with pytest.raises(Problem, match="jsonl: cannot be read"):
        list(read_own(tmp_path / "none.jsonl"))
