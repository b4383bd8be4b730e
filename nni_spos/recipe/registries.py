"""The components that a recipe may name: tasks, priors, searches, metrics, training techniques.

One of ours is a file and a line here. Nothing is imported until it is named.
"""

from __future__ import annotations

from typing import Any

from nni_spos.components import Registry

TASKS: Registry[Any] = Registry(
    "task",
    {
        "classification": "nni_spos.tasks.classification:Classification",
        "multilabel": "nni_spos.tasks.multilabel:MultiLabel",
        "regression": "nni_spos.tasks.regression:Regression",
        "segmentation": "nni_spos.tasks.segmentation:Segmentation",
    },
    "nni_spos.tasks",
    base="nni_spos.tasks.base:Task",
)
"""What a network is to predict."""

PRIORS: Registry[Any] = Registry(
    "prior",
    {
        "uniform": "nni_spos.priors.uniform:UniformPrior",
        "constrained": "nni_spos.priors.constrained:ConstrainedPrior",
    },
    "nni_spos.priors",
    base="nni_spos.priors.base:Prior",
)

SEARCHES: Registry[Any] = Registry(
    "search",
    {
        "evolution": "nni_spos.evolution.evolution:EvolutionSearch",
        "nsga2": "nni_spos.evolution.nsga2:Nsga2Search",
        "bayesian": "nni_spos.evolution.bayesian:BayesianSearch",
        "random": "nni_spos.evolution.random_search:RandomSearch",
    },
    "nni_spos.searches",
    base="nni_spos.evolution.search:Search",
)


class MetricRegistry(Registry[Any]):
    """Metrics, of which most of ours need not be listed in a recipe."""

    def is_of_every_space(self, name: str) -> bool:
        """Whether a metric is one that every space has to which it applies."""
        return name in self.ours and not self.load_ours(name).is_optional


METRICS = MetricRegistry(
    "metric",
    {
        "flops": "nni_spos.metrics.flops:Flops",
        "params": "nni_spos.metrics.params:Params",
        "bitops": "nni_spos.metrics.bitops:BitOps",
        "size_bytes": "nni_spos.metrics.size_bytes:SizeBytes",
        "weight_bytes": "nni_spos.metrics.weight_bytes:WeightBytes",
        "peak_activation_bytes": "nni_spos.metrics.peak_activation_bytes:PeakActivationBytes",
    },
    "nni_spos.metrics",
    base="nni_spos.metrics.base:Metric",
)
"""In the order in which costs are listed. Every space has those that apply to it, save the optional
ones, which a recipe lists."""

EXPORTERS: Registry[Any] = Registry(
    "format",
    {
        "onnx": "nni_spos.export.onnx_format:OnnxExporter",
        "torch": "nni_spos.export.torch_format:TorchExporter",
        "safetensors": "nni_spos.export.safetensors_format:SafetensorsExporter",
    },
    "nni_spos.exporters",
    base="nni_spos.export.base:Exporter",
)
"""What a network is exported to; no recipe names one, the command line does."""

_TECHNIQUES = "nni_spos.training.techniques"

TECHNIQUES: Registry[Any] = Registry(
    "technique",
    {
        "opt": f"{_TECHNIQUES}.opt:Opt",
        "sched": f"{_TECHNIQUES}.sched:Sched",
        "clips": f"{_TECHNIQUES}.clips:Clips",
        "accumulate": f"{_TECHNIQUES}.accumulate:Accumulate",
        "model_ema": f"{_TECHNIQUES}.model_ema:ModelEma",
        "mixing": f"{_TECHNIQUES}.mixing:Mixing",
        "aa": f"{_TECHNIQUES}.aa:AutoAugment",
        "reprob": f"{_TECHNIQUES}.reprob:RandomErasing",
        "class_balanced": f"{_TECHNIQUES}.class_balanced:ClassBalanced",
        "drop": f"{_TECHNIQUES}.drop:Drop",
        "drop_path": f"{_TECHNIQUES}.drop_path:DropPath",
        "kd": f"{_TECHNIQUES}.kd:Distillation",
        "paths": f"{_TECHNIQUES}.paths:Paths",
        "inplace_distillation": f"{_TECHNIQUES}.inplace_distillation:InplaceDistillation",
        "shrinking": f"{_TECHNIQUES}.shrinking:Shrinking",
        "limit_schedule": f"{_TECHNIQUES}.limit_schedule:LimitSchedule",
        "complexity": f"{_TECHNIQUES}.complexity:ComplexityAware",
        "few_shot": f"{_TECHNIQUES}.few_shot:FewShot",
        "early_stopping": f"{_TECHNIQUES}.early_stopping:EarlyStop",
        "logger": f"{_TECHNIQUES}.logger:OtherLogger",
    },
    "nni_spos.techniques",
    base="nni_spos.training.technique:Technique",
)
"""In the order in which they act. All of them are off until a recipe asks for one."""
