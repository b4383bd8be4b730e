"""The objective of a search by generation, as a picture beside its journal."""

from __future__ import annotations

from nni_spos.display.figures import open_figure, save
from nni_spos.report.figures import summarise_generations
from nni_spos.search.results import Results


def draw_search(results: Results) -> None:
    """Write ``curves.png``: the best candidate so far, and the mean of each generation.

    Nothing is written for a search without a result.
    """
    rows = summarise_generations(results.candidates, results.objective)
    if not rows:
        return
    figure, axes = open_figure(6.0, 3.4)
    number = [row.num_so_far for row in rows]
    axes.plot(number, [row.best_so_far for row in rows], "o-", color="#0072B2", label="best so far")
    axes.plot(number, [row.mean for row in rows], "s--", color="#D55E00", label="mean")
    axes.set_xlabel("candidates so far (one mark per generation)")
    axes.set_ylabel(results.figure.full_title)
    axes.grid(color="#d8d8d8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, results.folder.curves)
