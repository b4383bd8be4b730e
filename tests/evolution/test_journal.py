import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.errors import FileWarning, SearchError
from nni_spos.evolution import Candidate, EvolutionSearch, Journal, State, read_journal
from nni_spos.files.sealing import open_record

SETTINGS = {"seed": 1, "space": {"a": ["k3", "k5"]}, "constraints": ("flops <= 3",)}
CANDIDATES = [
    Candidate({"a": "k3"}, 0, 0, {"flops": 9}, State.DONE, {"top1": 71.5, "loss": 1}),
    Candidate({"a": "k5"}, 1, 0, {"flops": 25}, State.FAILED, reason="out of memory\nin é"),
    Candidate({"a": "k7"}, 2, 1, {"flops": 49}, State.DONE, {"top1": 0.0}),
]
OUTCOMES = [
    ({"a": "k3"}, {"top1": 71.5, "loss": 1}),
    ({"a": "k5"}, "out of memory\nin é"),
    ({"a": "k7"}, {"top1": 0.0}),
]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run" / "search.jsonl"


@pytest.fixture
def written(file):
    """A journal with three outcomes."""
    journal = Journal(file, SETTINGS)
    for candidate in CANDIDATES:
        journal.append(candidate)
    return file


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("journals") / "search.jsonl"


def test_a_new_journal_is_empty_and_survives_reopening(file):
    assert Journal(file, SETTINGS).outcomes == []
    assert Journal(file, SETTINGS).outcomes == []


def test_outcomes_come_back_in_order(written):
    assert Journal(written, SETTINGS).outcomes == OUTCOMES
    Journal(str(written), SETTINGS).append(CANDIDATES[0])
    # In the order of proposal; of one candidate the last outcome counts.
    assert Journal(written, SETTINGS).outcomes == [OUTCOMES[0], *OUTCOMES]


def test_every_record_is_on_the_disk_at_once(file):
    journal = Journal(file, SETTINGS)
    for count, candidate in enumerate(CANDIDATES, start=1):
        journal.append(candidate)
        assert Journal(file, SETTINGS).outcomes == OUTCOMES[:count]


def test_cut_short_at_every_byte(written):
    content = written.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4
    for length in range(len(content) + 1):
        written.write_bytes(content[:length])
        complete = sum(end <= length for end in ends)
        if not complete:
            with pytest.raises(SearchError, match="is not a search journal"):
                Journal(written, SETTINGS)
            continue
        if length in ends:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                journal = Journal(written, SETTINGS)
        else:
            with pytest.warns(UserWarning, match=r"search.jsonl: the last line was cut short; dr"):
                journal = Journal(written, SETTINGS)
        assert journal.outcomes == OUTCOMES[: complete - 1]
        journal.append(CANDIDATES[2])
        assert Journal(written, SETTINGS).outcomes == [*journal.outcomes, OUTCOMES[2]]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (SETTINGS | {"seed": 2}, "seed was 1 and now is 2"),
        (
            SETTINGS | {"seed": 2, "space": {"a": ["k3"]}},
            r"seed was 1 and now is 2; space: a was \['k3', 'k5'\] and now is \['k3'\]",
        ),
        (SETTINGS | {"checkpoint": "supernet.pt"}, "checkpoint was none and now is 'supernet.pt'"),
        (SETTINGS | {"checkpoint": None}, "checkpoint was none and now is none"),
        ({"seed": 1, "space": SETTINGS["space"]}, r"constraints was \[.*\] and now is none"),
        (SETTINGS | {"space": {"a": ["k5", "k3"]}}, r"space: a was \[.*\] and now is \[.*\]"),
    ],
)
def test_other_settings_are_refused(written, settings, names):
    content = written.read_bytes()
    with pytest.raises(
        SearchError,
        match=rf"search.jsonl: belongs to a search with other settings \({names}\)\. "
        "Restore them to resume. To start anew, move the file away",
    ):
        Journal(written, settings)
    assert written.read_bytes() == content


def test_the_same_settings_in_another_order_are_accepted(written):
    again = dict(reversed(SETTINGS.items())) | {"constraints": ["flops <= 3"]}
    assert Journal(written, again).outcomes == OUTCOMES


def header(**changes):
    content = {"journal_version": 1, "settings": json.loads(json.dumps(SETTINGS))}
    return json.dumps(content | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        header(settings=5),
        header(settings=[["seed", 1]]),
        header() + b"garbage\n",
        header() + b"\n",
        header() + b"[" * 100_000 + b"\n",
        header() + b"5\n",
        header() + b"{}\n",
        header() + b'"path"\n',
    ],
)
def test_garbage_is_refused(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(
        SearchError, match=r"search.jsonl: is not a search journal \(.*\)\. Move it"
    ):
        Journal(file, SETTINGS)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        {"path": 5},
        {"path": ["k3"]},
        {"metrics": 71.5},
        {"metrics": None},
        {"metrics": "71.5"},
        {"number": None},
        {"costs": 9},
    ],
)
def test_a_damaged_record_is_refused(written, damage):
    # Of a journal that was begun before there were hashes.
    record = open_record(written.read_bytes().splitlines()[1])[0]
    written.write_bytes(header() + json.dumps(record | damage).encode() + b"\n")
    with pytest.raises(SearchError, match="is not a search journal"):
        Journal(written, SETTINGS)
    written.write_bytes(header() + json.dumps(record).encode() + b"\n")
    Journal(written, SETTINGS).append(CANDIDATES[1])
    assert Journal(written, SETTINGS).outcomes == OUTCOMES[:2]


def test_a_damaged_line_is_left_out_and_hides_no_other(written):
    content = written.read_bytes()
    begins = [0] + [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for place in range(begins[1], len(content) - 1, 3):
        number = sum(begin <= place for begin in begins)
        if content[place] in b"\n":
            continue
        damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        if damaged.count(b"\n") != content.count(b"\n"):
            continue
        written.write_bytes(damaged)
        left = [outcome for i, outcome in enumerate(OUTCOMES, start=2) if i != number]
        with pytest.warns(FileWarning, match=rf"search.jsonl: damaged and left out: line {number}"):
            journal = Journal(written, SETTINGS)
        assert journal.outcomes == left
        assert written.read_bytes() == damaged
    journal.append(CANDIDATES[2])
    with pytest.warns(FileWarning, match="line 4"):
        assert Journal(written, SETTINGS).outcomes == [*OUTCOMES[:2], OUTCOMES[2]]


def test_a_damaged_first_line_is_refused(written):
    content = written.read_bytes()
    place = content.index(b'"seed": 1') + len(b'"seed": ')
    for byte in (b"2", b"x"):
        written.write_bytes(content[:place] + byte + content[place + 1 :])
        with pytest.raises(SearchError, match="is not a search journal"):
            Journal(written, SETTINGS)
    written.write_bytes(content)
    assert Journal(written, SETTINGS).outcomes == OUTCOMES


def test_another_version_is_refused(file):
    file.parent.mkdir()
    file.write_bytes(header(journal_version=2) + b'{"future": 1}\n')
    with pytest.raises(SearchError, match=r"search.jsonl: has version 2; this is version 1\."):
        Journal(file, SETTINGS)
    file.write_bytes(header())
    assert Journal(file, SETTINGS).outcomes == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
LINES = st.binary(max_size=10) | (
    JSON
    | st.fixed_dictionaries(
        {"path": JSON, "number": JSON, "generation": JSON, "costs": JSON},
        optional={"metrics": JSON, "failed": JSON},
    )
).map(lambda content: json.dumps(content).encode())


@given(st.lists(LINES, max_size=3).map(b"\n".join))
@pytest.mark.filterwarnings("ignore:.*cut short")
def test_any_file_is_read_or_refused(scratch, content):
    for start in (b"", header()):
        scratch.write_bytes(start + content)
        try:
            journal = Journal(scratch, SETTINGS)
        except SearchError:
            continue
        for path, outcome in journal.outcomes:
            assert isinstance(path, dict)
            assert isinstance(outcome, dict | str)


def test_a_search_resumes_from_its_journal(file, space, costs, score, run):
    def search():
        return EvolutionSearch(space, costs, population_size=5, num_generations=4)

    def evaluate(path):
        metrics = score(path)
        return "crashed" if metrics["top1"] % 4 == 1 else metrics

    whole = search()
    asked = run(whole, evaluate)
    part = search()
    journal = Journal(file, SETTINGS)
    for _ in range(13):
        path = part.ask()
        outcome = evaluate(path)
        if isinstance(outcome, str):
            journal.append(part.tell_failure(path, outcome))
        else:
            journal.append(part.tell(path, outcome))
    resumed = search()
    for path, outcome in Journal(file, SETTINGS).outcomes:
        resumed.remember(path, outcome)
    assert run(resumed, evaluate) == asked[13:]
    assert resumed.candidates == whole.candidates


def test_reading_alone(written):
    with written.open("ab") as stream:
        stream.write(b'{"pa')
    content = written.read_bytes()
    settings, candidates = read_journal(written)
    assert settings == json.loads(json.dumps(SETTINGS))
    assert candidates == CANDIDATES
    assert written.read_bytes() == content


def test_reading_alone_takes_the_last_record_of_a_candidate(file):
    journal = Journal(file, SETTINGS)
    late = Candidate({"a": "k5"}, 1, 0, {"flops": 25}, State.DONE, {"top1": 80.0})
    for candidate in (CANDIDATES[2], CANDIDATES[1], CANDIDATES[0], late):
        journal.append(candidate)
    assert read_journal(file)[1] == [CANDIDATES[0], late, CANDIDATES[2]]


def test_reading_alone_refuses_what_is_not_there(file):
    with pytest.raises(SearchError, match=r"search.jsonl: cannot be read"):
        read_journal(file)


def test_a_journal_without_outcomes_takes_other_settings(file):
    Journal(file, SETTINGS)
    others = {"seed": 2, "space": {"a": ["k3"]}}
    journal = Journal(file, others)
    assert journal.settings == others
    journal.append(CANDIDATES[0])
    assert read_journal(file)[0] == others
    assert Journal(file, others).outcomes == OUTCOMES[:1]
    with pytest.raises(SearchError, match="other settings"):
        Journal(file, SETTINGS)
