"""Certify the model of a run with CRFL: the share of test samples that no backdoor up to a radius can have changed.

python benchmarks/crfl_certificate.py RUN_FOLDER [--copies 1000]

For softmax regression, whose Lipschitz constant is known; the run is ``flsec run baselines/crfl``.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file

from flsec.metrics import certified_accuracy, certify_model, logistic_lipschitz, noise_contraction
from flsec.simulations.config import load_config
from flsec.simulations.resources import Resources

RADII = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


def main() -> None:
    """Print the curve, and what it rests on, as a table and as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--copies", type=int, default=1000)
    options = parser.parse_args()
    config = load_config(options.run / "config.yaml")
    if config.model.name != "softmax":
        raise SystemExit("the certificate needs a Lipschitz constant, which is known for softmax regression only")
    experiment = Resources(config)
    model = experiment.new_model()
    model.load_state_dict(load_file(options.run / "model.safetensors"))
    crfl = next(entry for entry in config.defenses if entry.name == "crfl").params
    attacks = {entry.name: entry.params for entry in config.attacks}
    assert experiment.adversaries is not None
    round_ = experiment.adversaries.first_round
    hostile = experiment.adversaries.active(round_)
    steps = config.training.num_steps(len(experiment.partition[min(hostile)]))
    later = config.simulation.num_rounds - round_
    x, y = experiment.test_data
    certificate = certify_model(
        model,
        x,
        attacker_weights=[1 / config.simulation.num_clients] * len(hostile),
        learning_rate=config.training.learning_rate,
        num_steps=steps,
        lipschitz=logistic_lipschitz(crfl["max_norm"]),
        poisoned_share=attacks["badnets"]["fraction"],
        boost=attacks["model_replacement"]["scale"],
        max_norm=crfl["max_norm"],
        std=crfl["std"],
        contraction=noise_contraction([crfl["max_norm"]] * later, crfl["std"]),
        num_copies=options.copies,
        seed=config.seed,
    )
    curve = certified_accuracy(certificate, y, RADII)
    print(f"smoothed accuracy {float((certificate.predictions == y).double().mean()):.4f}, M = {options.copies}")
    print("radius    certified accuracy")
    for radius, share in zip(RADII, curve, strict=True):
        print(f"{radius:<9g} {share:.4f}")
    print(json.dumps({"radii": RADII, "certified_accuracy": curve}))


if __name__ == "__main__":
    main()
