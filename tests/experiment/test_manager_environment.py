"""What NNI's manager is started with."""

from nni_spos.experiment import manager_environment as module


def test_the_environment_keeps_what_was_there(monkeypatch):
    monkeypatch.setenv("NODE_OPTIONS", "--max-http-header-size=999")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = module.nnictl_environment()
    assert environment["NODE_OPTIONS"].startswith("--max-http-header-size=999 --require ")
    assert environment["NO_PROXY"] == "example.org,localhost,127.0.0.1"
    assert environment["PYTHONWARNINGS"] == "ignore"


def required(monkeypatch, public, known):
    monkeypatch.delenv("NODE_OPTIONS", raising=False)
    monkeypatch.setattr(module, "knows_users", lambda: known)
    words = module.nnictl_environment(public)["NODE_OPTIONS"].split("--require ")[1:]
    return [word.strip().strip('"') for word in words]


def test_what_node_runs_before_nni(monkeypatch):
    always = [module.PATIENCE, module.CONFIGURATION]
    here = [*always, module.LOOPBACK, module.SAME_SITE]
    assert required(monkeypatch, False, True) == list(map(str, [*here, module.SAME_USER]))
    # It could not let anybody in.
    assert required(monkeypatch, False, False) == list(map(str, here))
    assert required(monkeypatch, True, True) == list(map(str, always))
    assert all(file.is_file() for file in (*here, module.SAME_USER))
