"""Federated averaging under attack, without a framework: ``python -m examples.fedavg_under_attack``. Read it first.

Twenty clients learn together to read handwritten digits. In every round the server sends its model to all of them, each
trains it on its own images and sends it back, and the server makes one new model from the twenty. Eight of the clients
are hostile: they send back their update, which is the trained minus the received model, reversed and four times as
long. A server that averages follows them; one that takes the mean of the twelve updates which agree most does not.

Everything that happens is in ``run``. What flsec adds for real servers (Flower's two interfaces, quarantine, nesting,
reports) and for simulations (engines, checkpoints, records) leaves these numbers as they are: a test compares them with
those of ``flsec run quickstart``, whose settings these are.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from flsec.aggregation import mean, multi_krum
from flsec.attacks import Adversaries, sign_flipping
from flsec.data import load_dataset, make_partition
from flsec.models.build import build_model
from flsec.randomness import generator
from flsec.training import Training, evaluate, train

SEED = 1
NUM_CLIENTS = 20
NUM_ROUNDS = 15
TRAINING = Training(learning_rate=0.1, momentum=0.9, epochs=2, batch_size=16)
HOSTILE = Adversaries(num_clients=NUM_CLIENTS, fraction=0.4, seed=SEED).active(round=1)  # the same 8 in every round

Rule = Callable[[Tensor, Tensor], Tensor]  # (updates (n, d), numbers of examples (n,)) -> aggregate (d,)


class Run(NamedTuple):
    """What a run leaves behind."""

    accuracies: list[float]  # on the test images, before the first round and after each one
    weights: Tensor  # (d,), the last model


def fedavg(updates: Tensor, num_examples: Tensor) -> Tensor:
    """Return the mean update, weighted by what each client says it has trained on.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017, Alg. 1.
    """
    return mean(updates, weights=num_examples)


def robust(updates: Tensor, num_examples: Tensor) -> Tensor:
    """Return the mean of the twelve updates that agree most; numbers of examples are the attacker's word.

    Source: Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017, Sec. 4 and 5 (Multi-Krum).
    """
    return multi_krum(updates, num_byzantine=len(HOSTILE))


def run(rule: Rule, *, attack: bool, num_rounds: int = NUM_ROUNDS) -> Run:
    """Run federated learning with one aggregation rule, with or without the attack."""
    torch.set_num_threads(1)  # sums depend on the number of threads in their last digits
    data = load_dataset("digits")
    test_x, test_y = data.test.tensors()
    # Each of ten groups of clients holds one digit for a half of its images.
    partition = make_partition("group_bias", data.train.labels, NUM_CLIENTS, bias=0.5, seed=SEED)
    model = build_model("mlp", data.input_shape, data.num_classes, SEED, hidden=[64])
    weights = parameters_to_vector(model.parameters()).detach()
    accuracies = [evaluate(model, test_x, test_y).accuracy]

    for round_ in range(1, num_rounds + 1):
        updates, num_examples = [], []
        for client in range(NUM_CLIENTS):
            # what a client does
            vector_to_parameters(weights.clone(), model.parameters())
            x, y = data.train.tensors(partition[client])
            train(model, x, y, TRAINING, round=round_, generator=generator(SEED, round_, client, "batches"))
            local = parameters_to_vector(model.parameters()).detach()
            if attack and client in HOSTILE:
                local = torch.from_numpy(sign_flipping([weights.numpy()], [local.numpy()], scale=4.0)[0])
            # what the server gets
            updates.append(local - weights)
            num_examples.append(len(y))
        weights = weights + rule(torch.stack(updates), torch.tensor(num_examples, dtype=torch.float64))
        vector_to_parameters(weights.clone(), model.parameters())
        accuracies.append(evaluate(model, test_x, test_y).accuracy)
    return Run(accuracies, weights)


def main() -> int:
    """Print what each rule comes to; return 1 if the attack did no harm or the robust rule did not help."""
    runs = {(rule, attack): run(rule, attack=attack) for rule in (fedavg, robust) for attack in (False, True)}
    last = {key: result.accuracies[-1] for key, result in runs.items()}
    print(f"test accuracy after {NUM_ROUNDS} rounds   nobody attacks   {len(HOSTILE)} of {NUM_CLIENTS} attack")
    for name, rule in (("FedAvg", fedavg), ("Multi-Krum", robust)):
        print(f"{name:>30}{last[rule, False]:17.3f}{last[rule, True]:17.3f}")
    holds = last[fedavg, True] < 0.5 < 0.9 < min(last[fedavg, False], last[robust, False], last[robust, True])
    return 0 if holds and np.isfinite(runs[robust, True].weights.numpy()).all() else 1


if __name__ == "__main__":
    raise SystemExit(main())
