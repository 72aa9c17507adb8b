"""higher, on PyTorch: one task after the other, each in an `innerloop_ctx`."""

import higher
import torch

from peers.clock import Run
from peers.torch_peers import LEARNERS, build_meta_loss, draw_all, learned_loss, load_tasks, repeat_with_adam
from peers.workloads import INNER_RATE


def prepare(workload: str, num_steps: int) -> Run:
    """Draws a loss, and defines the outer step; see `torch_peers.prepare`."""
    x, y, task_loss = load_tasks(workload)
    learner, meta_loss = LEARNERS[workload](), build_meta_loss()
    optimizer = torch.optim.SGD(learner.parameters(), INNER_RATE)

    def differentiate() -> float:
        total = 0.0
        for x_task, y_task in zip(x, y):
            with higher.innerloop_ctx(draw_all(learner), optimizer) as (fast_learner, inner_optimizer):
                for _ in range(num_steps):
                    inner_optimizer.step(learned_loss(meta_loss, fast_learner(x_task), y_task))
                loss = task_loss(fast_learner(x_task), y_task) / len(x)
                loss.backward()
            total += loss.item()
        return total

    return repeat_with_adam(meta_loss, differentiate)
