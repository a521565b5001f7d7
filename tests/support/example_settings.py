"""Settings that some defenses need in tests with the contracts' network, beside ``flsec.testing.example``."""

__all__ = ["SETTINGS"]

SETTINGS = {
    "deep_sight": {"output_layer": ("weight", "bias"), "num_samples": 20},  # the network's outputs are not that layer's
    "fedinv": {"num_steps": 3, "amplification": 100.0, "learning_rate": 0.03},  # hundreds of rounds in seconds
}
