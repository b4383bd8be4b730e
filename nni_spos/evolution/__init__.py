"""The search for the best path: ask / tell, without NNI and without PyTorch."""

from nni_spos.evolution.bayesian import BayesianSearch
from nni_spos.evolution.candidate import Candidate, State
from nni_spos.evolution.evolution import EvolutionSearch
from nni_spos.evolution.feasible import FeasibleSampler
from nni_spos.evolution.front import choose_cost_objectives, pareto_front
from nni_spos.evolution.journal import Journal, read_journal
from nni_spos.evolution.landmarks import choose_landmarks
from nni_spos.evolution.nsga2 import Nsga2Search
from nni_spos.evolution.random_search import RandomSearch
from nni_spos.evolution.search import Search, Signal

__all__ = [
    "BayesianSearch",
    "Candidate",
    "EvolutionSearch",
    "FeasibleSampler",
    "Journal",
    "Nsga2Search",
    "RandomSearch",
    "Search",
    "Signal",
    "State",
    "choose_cost_objectives",
    "choose_landmarks",
    "pareto_front",
    "read_journal",
]
