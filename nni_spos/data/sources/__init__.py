"""Our data sets, a module each; what the registry `nni_spos.recipe.datasets.DATASETS` names."""
