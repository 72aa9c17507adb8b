"""PyTorch: `torch.func.vmap` of `grad` in a loop, with `torch.optim.Adam`."""

from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from peers.clock import Run, repeat
from peers.workloads import ADAM_EPSILON, INNER_RATE, LOSS_UNITS, NUM_CLASSES, OUTER_RATE, WORKLOADS

TaskLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_dense() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))


def build_lenet() -> nn.Module:
    convolutions = [
        *(nn.Conv2d(1, 6, 5, padding="same"), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
    ]
    dense = [nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, NUM_CLASSES), nn.Softmax(-1)]
    return nn.Sequential(*convolutions, *dense)


LEARNERS = {"dense": build_dense, "lenet": build_lenet}


@torch.no_grad()
def draw(weights: torch.Tensor, of_one: torch.Tensor | None = None) -> torch.Tensor:
    """Draws weights in place, as Keras does: kernels by Glorot, biases zero.

    Args:
        weights: The weights, of one model or of several.
        of_one: The weights of one model, if there are several.
    """
    shape = weights if of_one is None else of_one
    if shape.ndim == 1:
        return weights.zero_()
    bound = (6 / (shape[0].numel() + shape[:, 0].numel())) ** 0.5
    return weights.uniform_(-bound, bound)


def draw_all(model: nn.Module) -> nn.Module:
    """Draws the weights of a model anew, and returns the model."""
    for weights in model.parameters():
        draw(weights)
    return model


def build_meta_loss() -> nn.Module:
    hidden = [nn.Linear(2, LOSS_UNITS), nn.SiLU(), nn.Linear(LOSS_UNITS, LOSS_UNITS), nn.SiLU()]
    return draw_all(nn.Sequential(*hidden, nn.Linear(LOSS_UNITS, 1, bias=False)))


def learned_loss(meta_loss: nn.Module, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Scores each pair of an output and its target; with one output this is the loss per sample."""
    return meta_loss(torch.stack([y_pred.flatten(), y.flatten()], -1)).mean()


def cross_entropy(y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -(y * torch.log(y_pred + 1e-7)).sum(-1).mean()


def load_tasks(workload: str) -> tuple[torch.Tensor, torch.Tensor, TaskLoss]:
    """Returns inputs and targets, each `[N, B, ...]`, and the task loss. Images have their channel first."""
    x, y = map(torch.from_numpy, WORKLOADS[workload].tasks())
    if WORKLOADS[workload].classifies:
        return x.movedim(-1, -3).contiguous(), y, cross_entropy
    return x, y, nn.functional.mse_loss


def repeat_with_adam(meta_loss: nn.Module, differentiate: Callable[[], float]) -> Run:
    """Returns a `Run` whose steps move the learned loss along the gradients that a function leaves in its weights."""
    optimizer = torch.optim.Adam(meta_loss.parameters(), OUTER_RATE, eps=ADAM_EPSILON)

    def outer_step() -> float:
        optimizer.zero_grad()
        loss = differentiate()
        optimizer.step()
        return loss

    return repeat(outer_step)


def prepare(workload: str, num_steps: int) -> Run:
    """Draws a loss, and defines the outer step.

    Args:
        workload: Name of the workload.
        num_steps: Number of inner steps, all differentiated through.

    Returns:
        A `Run`.
    """
    x, y, task_loss = load_tasks(workload)
    learner, meta_loss = LEARNERS[workload](), build_meta_loss()

    def score(theta, x, y):
        inner_loss = lambda theta: learned_loss(meta_loss, functional_call(learner, theta, x), y)
        for _ in range(num_steps):
            gradient = grad(inner_loss)(theta)
            theta = {name: theta[name] - INNER_RATE * gradient[name] for name in theta}
        return task_loss(functional_call(learner, theta, x), y)

    def differentiate() -> float:
        theta = {name: draw(torch.empty(len(x), *w.shape), of_one=w) for name, w in learner.named_parameters()}
        loss = vmap(score)(theta, x, y).mean()
        loss.backward()
        return loss.item()

    return repeat_with_adam(meta_loss, differentiate)
