import pytest
import torch
import torchvision
from safetensors.torch import save_file

from flsec.errors import ConfigError
from flsec.models import TorchvisionModel, build_model

SMALL = "shufflenet_v2_x0_5"


def build(shape=(3, 32, 32), classes=5, **settings) -> TorchvisionModel:
    return build_model("torchvision_model", shape, classes, 0, **{"architecture": SMALL, **settings})


def test_is_torchvisions_network_with_another_last_layer() -> None:
    model = build(architecture="resnet18", classes=10)
    assert sum(p.numel() for p in model.parameters()) == 11_689_512 - 513 * 1000 + 513 * 10  # torchvision's page
    theirs = torchvision.models.resnet18(num_classes=10)
    assert {k: v.shape for k, v in model.network.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "squeezenet1_1", "regnet_y_400mf", "vit_b_32"])
def test_builds_every_kind(architecture: str) -> None:
    assert build(architecture=architecture).train()(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_networks_with_several_outputs_give_one() -> None:
    assert build((3, 64, 64), architecture="googlenet").train()(torch.rand(2, 3, 64, 64)).shape == (2, 5)


def test_grey_images_are_shown_in_all_three_channels() -> None:
    grey, colour = build((1, 32, 32)).eval(), build((3, 32, 32)).eval()
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(grey(x), colour(x.repeat(1, 3, 1, 1)))
    summed = torchvision.models.shufflenet_v2_x0_5(num_classes=5)
    summed.load_state_dict(grey.network.state_dict())
    first = summed.conv1[0]
    summed.conv1[0] = torch.nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False)
    summed.conv1[0].weight.data = first.weight.data.sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey(x), summed.eval()(x), rtol=1e-4, atol=1e-5)


def test_is_built_in_training_mode_and_untouched_by_the_trial() -> None:
    model = build()
    assert all(m.training for m in model.modules())
    assert all(b.item() == 0 for n, b in model.named_buffers() if n.endswith("num_batches_tracked"))
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "resnet_18"}, "no architecture 'resnet_18' .* Nearest: resnet18"),
        ({"architecture": "ResNet50"}, "Nearest: .*resnet50"),
        ({"architecture": "qqqq"}, "It has: alexnet"),
        ({"architecture": "fcn_resnet50"}, "no architecture 'fcn_resnet50'"),  # no classification
        ({"architecture": 18}, "architecture"),
        ({"architecture": "alexnet"}, "alexnet cannot take images of 32 x 32: .* Take larger"),
        ({"architecture": "vit_b_16", "shape": (3, 32, 48)}, "vit_b_16 cannot take images of 32 x 48"),
        ({"architecture": "vit_b_16", "shape": (3, 28, 28)}, "vit_b_16 cannot take images of 28 x 28"),
        ({"architecture": "maxvit_t"}, "maxvit_t cannot take images of 32 x 32"),
        ({"shape": (2, 32, 32)}, "takes images of 1 or 3 channels"),
        ({"shape": (784,)}, "takes images"),
    ],
)
def test_refuses_what_cannot_be_in_one_sentence(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(**settings)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_starts_from_a_file(tmp_path, suffix: str) -> None:
    torch.manual_seed(3)
    saved = torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict()
    path = str(tmp_path / f"saved{suffix}")
    (save_file if suffix == ".safetensors" else torch.save)(saved, path)
    own = build(weights=path).network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in saved.items())


def test_a_last_layer_for_other_classes_stays_as_drawn(tmp_path, caplog) -> None:
    torch.manual_seed(3)
    saved = torchvision.models.shufflenet_v2_x0_5(num_classes=9).state_dict()
    path = str(tmp_path / "saved.pt")
    torch.save(saved, path)
    own, drawn = build(weights=path).network.state_dict(), build().network.state_dict()
    for key, value in own.items():
        assert torch.equal(value, drawn[key] if key.startswith("fc.") else saved[key])
    assert "fc.weight and fc.bias start from a draw" in caplog.text


def test_refuses_weights_that_do_not_fit(tmp_path) -> None:
    path = str(tmp_path / "saved.pt")
    for content, words in [
        (torchvision.models.squeezenet1_1().state_dict(), f"is no state dict of {SMALL}: .* is in the file"),
        (torchvision.models.shufflenet_v2_x1_0(num_classes=5).state_dict(), "has the shape .* in .*shufflenet_v2_x0_5"),
        ({"a": 1}, "holds no state dict"),
        (3, "holds no state dict"),
    ]:
        torch.save(content, path)
        with pytest.raises(ConfigError, match=words):
            build(weights=path)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, words in [("none.pt", "there is no file"), ("broken.pt", "read"), ("broken.safetensors", "read")]:
        with pytest.raises(ConfigError, match=words):
            build(weights=str(tmp_path / name))
