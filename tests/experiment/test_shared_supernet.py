"""What a trial on another machine does before it scores: the tuner's supernet, or none."""

import threading

import pytest
import yaml
from trained_recipes import write_trained

from nni_spos.errors import CheckpointError, ExperimentError
from nni_spos.experiment.manager import Manager
from nni_spos.experiment.shared_supernet import ensure_shared_supernet, publish_supernet
from nni_spos.files.atomic import write_json
from nni_spos.files.digests import digest_weights
from nni_spos.recipe import identity
from nni_spos.recipe.recipe import load_recipe


@pytest.fixture(scope="module")
def tuner(tmp_path_factory):
    """The recipe on the tuner's machine."""
    return write_trained(tmp_path_factory.mktemp("tuner"))


@pytest.fixture
def published(tuner, manager, tmp_path):
    """What the manager serves."""
    (tmp_path / "log").mkdir()
    publish_supernet(tuner, tmp_path / "log")
    manager.logs = {file.name: file.read_bytes() for file in (tmp_path / "log").iterdir()}
    assert sorted(manager.logs) == ["supernet.json", "supernet.pt"]
    return manager.logs


@pytest.fixture
def here(tuner, tmp_path):
    """The same recipe on another machine, which has no supernet."""
    return write_recipe(tuner, tmp_path / "here")


def write_recipe(tuner, folder, **sections):
    content = yaml.safe_load(tuner.file.read_text())
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    folder.mkdir()
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))
    return load_recipe(folder / "recipe.yml")


def leftovers(recipe):
    places = [recipe.output, recipe.output / "supernets"]
    return sorted(file.name for place in places if place.exists() for file in place.iterdir())


def kept(tuner):
    return f"{digest_weights(tuner.checkpoint)}.pt"


def test_it_is_fetched_once(tuner, published, here, manager, capsys):
    client = Manager(manager.port)
    for _ in range(2):
        file = ensure_shared_supernet(here, client).checkpoint
        assert file.read_bytes() == tuner.checkpoint.read_bytes()
    assert manager.num_downloads == 1
    assert capsys.readouterr().out.count("fetched /") == 1
    assert leftovers(here) == sorted([kept(tuner), "fetch.lock", "supernets"])


def test_trials_that_start_together_fetch_it_once(tuner, published, here, manager):
    run = [
        threading.Thread(target=ensure_shared_supernet, args=(here, Manager(manager.port)))
        for _ in range(8)
    ]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    file = ensure_shared_supernet(here, Manager(manager.port)).checkpoint
    assert file.read_bytes() == tuner.checkpoint.read_bytes()
    assert manager.num_downloads == 1


def test_a_copy_that_is_there_is_used(tuner, published, here, manager):
    here.output.mkdir()
    here.checkpoint.write_bytes(tuner.checkpoint.read_bytes())
    ensure_shared_supernet(here, Manager(manager.port))
    assert manager.num_downloads == 0


def test_another_supernet_is_neither_used_nor_replaced(tuner, published, here, manager):
    content = bytearray(tuner.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    here.output.mkdir()
    here.checkpoint.write_bytes(content)
    found = ensure_shared_supernet(here, Manager(manager.port))
    assert found.checkpoint.read_bytes() == tuner.checkpoint.read_bytes()
    assert here.checkpoint.read_bytes() == content
    assert manager.num_downloads == 1
    found.checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is another supernet \(weights .*Delete it here"):
        ensure_shared_supernet(here, Manager(manager.port))


def test_the_tuners_supernet_is_served_whatever_is_trained_there_later(tuner, tmp_path):
    (tmp_path / "log").mkdir()
    recipe = write_recipe(tuner, tmp_path / "manager")
    recipe.output.mkdir()
    recipe.checkpoint.write_bytes(tuner.checkpoint.read_bytes())
    publish_supernet(recipe, tmp_path / "log")
    recipe.checkpoint.unlink()
    recipe.checkpoint.write_bytes(b"another")
    assert (tmp_path / "log" / "supernet.pt").read_bytes() == tuner.checkpoint.read_bytes()


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:-1], lambda x: b"", lambda x: x[:-1] + bytes([x[-1] ^ 1])],
    ids=["cut off", "empty", "another bit"],
)
def test_what_arrives_wrong_is_not_kept(published, here, manager, change):
    right = published["supernet.pt"]
    published["supernet.pt"] = change(right)
    with pytest.raises(CheckpointError, match=r"sent is not the supernet that the experiment"):
        ensure_shared_supernet(here, Manager(manager.port))
    assert leftovers(here) == ["fetch.lock", "supernets"]
    published["supernet.pt"] = right
    ensure_shared_supernet(here, Manager(manager.port))


def test_more_than_was_announced_is_not_read(published, here, manager):
    published["supernet.pt"] += b"more"
    file = ensure_shared_supernet(here, Manager(manager.port)).checkpoint
    assert file.read_bytes() == published["supernet.pt"][:-4]


def test_the_tuner_has_none(tuner, here, manager, tmp_path):
    (tmp_path / "log").mkdir()
    publish_supernet(here, tmp_path / "log")
    assert list((tmp_path / "log").iterdir()) == []
    with pytest.raises(CheckpointError, match=r"the tuner had no supernet .* nni-spos train"):
        ensure_shared_supernet(here, Manager(manager.port))


def test_a_resumed_experiment_publishes_again(tuner, published, tmp_path):
    publish_supernet(tuner, tmp_path / "log")
    assert (tmp_path / "log" / "supernet.pt").read_bytes() == published["supernet.pt"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"sha256": 1, "num_bytes": 1, "weights": "a", "settings": {}},
        {"sha256": "", "settings": 1},
        {"sha256": "a", "num_bytes": 1, "weights": "../a", "settings": {}},
    ],
)
def test_a_damaged_description(published, here, manager, tmp_path, content):
    write_json(tmp_path / "bad.json", content)
    published["supernet.json"] = (tmp_path / "bad.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"/logs/supernet.json: is damaged"):
        ensure_shared_supernet(here, Manager(manager.port))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"evaluation": {"batch_size": 10}}, "evaluation: batch_size is 10 here and 20 there"),
        ({"evaluation": {"seed": 3}}, "evaluation: seed is 3 here and 0 there"),
        ({"data": {"split_seed": 1}}, "data: split_seed is 1 here and 0 there"),
        ({"space": {"last_channels": 8}}, "space: last_channels is 8 here and 16 there"),
        ({"supernet": {"channels_last": False}}, "channels_last is False here and True there"),
    ],
)
def test_other_settings_are_refused(tuner, published, manager, tmp_path, sections, message):
    recipe = write_recipe(tuner, tmp_path / "other", **sections)
    with pytest.raises(ExperimentError, match=message):
        ensure_shared_supernet(recipe, Manager(manager.port))
    assert not recipe.output.exists()


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"root": "/elsewhere", "workers": 3}},
        {"evaluation": {"evaluator": "inline"}},
        {"data": {"held_mb": 1}},
        {"search": {"seed": 5}},
    ],
)
def test_settings_that_decide_no_score_may_differ(tuner, published, manager, tmp_path, sections):
    recipe = write_recipe(tuner, tmp_path / "other", **sections)
    ensure_shared_supernet(recipe, Manager(manager.port))


def test_another_version_is_refused(published, here, manager, monkeypatch):
    monkeypatch.setattr(identity, "__version__", "99")
    with pytest.raises(ExperimentError, match=r"nni_spos: version is '99' here and '.*' there"):
        ensure_shared_supernet(here, Manager(manager.port))
