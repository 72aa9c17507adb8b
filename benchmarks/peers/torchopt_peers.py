"""TorchOpt, on PyTorch: one task after the other, each with `MetaSGD`."""

import torchopt

from peers.clock import Run
from peers.torch_peers import LEARNERS, build_meta_loss, draw_all, learned_loss, load_tasks, repeat_with_adam
from peers.workloads import INNER_RATE


def prepare(workload: str, num_steps: int) -> Run:
    """Draws a loss, and defines the outer step; see `torch_peers.prepare`."""
    x, y, task_loss = load_tasks(workload)
    learner, meta_loss = LEARNERS[workload](), build_meta_loss()
    inner_optimizer = torchopt.MetaSGD(learner, lr=INNER_RATE)
    fresh = [torchopt.extract_state_dict(module) for module in (learner, inner_optimizer)]

    def differentiate() -> float:
        total = 0.0
        for x_task, y_task in zip(x, y):
            for module, state in zip((learner, inner_optimizer), fresh):
                torchopt.recover_state_dict(module, state)
            draw_all(learner)
            for _ in range(num_steps):
                inner_optimizer.step(learned_loss(meta_loss, learner(x_task), y_task))
            loss = task_loss(learner(x_task), y_task) / len(x)
            loss.backward()
            total += loss.item()
        return total

    return repeat_with_adam(meta_loss, differentiate)
