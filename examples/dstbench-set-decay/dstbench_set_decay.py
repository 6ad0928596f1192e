"""SET with a prune rate that decays exponentially: ten lines on top of MagRan."""

from dstbench_magran import MagRan
from pydantic import Field

from dstbench import hookimpl
from dstbench.sparsity import Schedule, Sparsifier


class SetDecay(MagRan):
    """SET (Mocanu et al. 2018), whose prune rate decays exponentially: p · decay^progress.

    Progress goes from 0, at the first step, to 1, where exploration stops.
    """

    name = "set-decay"

    class Settings(MagRan.Settings):
        prune_schedule: Schedule = Field(
            "constant", description="how the prune rate falls, beside the decay"
        )
        decay: float = Field(
            0.1, gt=0, le=1, description="fraction of the prune rate left where exploration stops"
        )

    def prune_rate_at(self, step: int) -> float:
        progress = step / (self.settings.stop_fraction * self.total_steps)
        return float(super().prune_rate_at(step) * self.settings.decay**progress)


@hookimpl
def dstbench_sparsifiers() -> list[type[Sparsifier]]:
    return [SetDecay]
