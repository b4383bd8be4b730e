"""Our training techniques keep the promises of every technique."""

from __future__ import annotations

import pytest

from nni_spos.recipe.registries import TECHNIQUES
from nni_spos.testing.techniques import CHECKS, TechniqueCase

KEYS = {
    "opt": {"opt": "adamw"},
    "sched": {"sched": "cosine"},
    "accumulate": {"accumulate": 2},
    "model_ema": {"model_ema": True},
    "mixing": {"mixup": 0.2, "cutmix": 1.0},
    "aa": {"aa": "rand-m9-mstd0.5"},
    "reprob": {"reprob": 0.5},
    "class_balanced": {"class_balanced": True},
    "drop": {"drop": 0.2},
    "drop_path": {"drop_path": 0.2},
    "paths": {"paths": 3},
    "shrinking": {"shrinking": 0.5, "shrinking_hold": 0.2},
    "limit_schedule": {"limit_schedule": {"flops >= 60%": 0.5}},
    "complexity": {"complexity_decay": 2.0, "momentum_groups": 3},
    "few_shot": {"few_shot": ["unit"], "few_shot_after": 0.5},
    "early_stopping": {"early_stopping": 2},
    "logger": {"logger": "csv"},
}
OWN = '''
from dataclasses import dataclass

import torch

from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Technique


class Sleepy(Technique):
    """Skips a state that it should have saved."""

    @dataclass(frozen=True)
    class Settings:
        rate: float = setting(real(0), 0.1)

    def begin(self, network, data):
        self.count = 0

    def after_step(self, network, step):
        self.count += 1
        with torch.no_grad():
            network.classifier.bias += self.settings.rate * self.count


class Wakeful(Sleepy):
    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]
'''


def test_every_technique_is_checked():
    # Those that need a file of another training, another technique beside, or quantized layers:
    # tests/retraining/test_technique_runs.py and tests/training/test_clips.py.
    assert {*KEYS, "clips", "kd", "inplace_distillation"} == set(TECHNIQUES.ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_techniques(check, name):
    check(TechniqueCase(name, **KEYS[name]))


@pytest.mark.slow
def test_a_technique_of_the_users_passes_and_one_that_forgets_does_not(tmp_path):
    (tmp_path / "own_techniques.py").write_text(OWN)
    cases = [
        TechniqueCase(f"own_techniques:{name}", tmp_path, rate=0.2)
        for name in ("Wakeful", "Sleepy")
    ]
    _, _, goes_on, _ = CHECKS
    goes_on(cases[0])
    with pytest.raises(AssertionError, match="a resumed training differs in"):
        goes_on(cases[1])
