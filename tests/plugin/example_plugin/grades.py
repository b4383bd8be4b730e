"""A task: classes in an order, such as grades, where a neighbour is nearly right."""

from dataclasses import dataclass

from nni_spos.recipe.settings import real, setting
from nni_spos.tasks.base import Figure, Task


@dataclass(frozen=True)
class Grades(Task):
    """Cross entropy, and how far the expected grade is off.

    Parameters
    ----------
    distance
        How much the distance counts in a training.
    """

    distance: float = setting(real(0), 0.1)
    targets = ("class",)
    compares_outputs = True
    figures = (
        Figure("within_one", "grades at most one off", unit="%", digits=2),
        Figure("mean_distance", "mean distance of grades", is_better="lower"),
    )

    def loss(self, outputs, targets):
        from torch import arange
        from torch.nn import functional

        expected = outputs.softmax(1) @ arange(outputs.shape[1], device=outputs.device).float()
        far = functional.l1_loss(expected, targets.float())
        return functional.cross_entropy(outputs, targets) + self.distance * far

    def tally(self, outputs, targets):
        from torch import stack

        far = (outputs.argmax(1) - targets).abs()
        return stack([(far <= 1).sum(), far.sum()])

    def conclude(self, sums, num_images):
        near, far = sums
        return {"within_one": 100 * near / num_images, "mean_distance": far / num_images}
