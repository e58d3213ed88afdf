"""P0: the closed form of Grad-CAM, the tokens, the PCA and the two stages."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench.methods import METHODS
from fer_bench.methods.patch_cam import CARD, PatchCam, batch_hard_triplet, cnn_loss
from fer_bench.torchvision_repair import torchvision


def faces(count: int = 8, seed: int = 0) -> Tensor:
    """Noise (count, 1, 40, 40)."""
    return torch.randn(count, 1, 40, 40, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def cnn() -> PatchCam:
    """A network ahead of its second stage, with the running statistics of a few batches."""
    torch.manual_seed(0)
    network = PatchCam(7)
    for seed in range(5):
        network(faces(16, seed))
    return network.eval()


@pytest.fixture
def fused(cnn: PatchCam) -> PatchCam:
    """The same network after `fuse`."""
    network = copy.deepcopy(cnn)
    network.fuse(lambda: iter([(faces(200, seed), torch.zeros(200)) for seed in (3, 4)]))
    return network.eval()


def test_the_closed_form_is_grad_cam(cnn: PatchCam) -> None:
    """For every class the map equals pytorch-grad-cam's, which scales it to 0..1 ahead of and after enlarging it."""
    assert torchvision  # grad-cam imports it too, so it has to be mended first
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    inputs = faces(7)
    target = torch.arange(7)
    with GradCAM(model=cnn, target_layers=[cnn.get_submodule(CARD.cam_layer)]) as explainer:
        theirs = explainer(input_tensor=inputs, targets=[ClassifierOutputTarget(int(t)) for t in target])
    with torch.no_grad():
        ours = cnn.closed_form_cam(inputs, target)
    assert ours.shape == (7, 10, 10)
    assert (ours.amax((1, 2)) > 0).sum() >= 4  # maps to compare
    scaled = scale_cam_image(scale_cam_image(ours.numpy() / 100, (40, 40)))
    np.testing.assert_allclose(scaled, theirs, atol=1e-4)


def test_the_closed_form_takes_the_predicted_class(cnn: PatchCam) -> None:
    """Without a target the map is that of the class with the greatest logit."""
    with torch.inference_mode():
        assert torch.equal(cnn.closed_form_cam(faces()), cnn.closed_form_cam(faces(), cnn(faces()).argmax(1)))


def test_tokens_are_quarter_means_of_the_map(cnn: PatchCam) -> None:
    """A patch's token is the mean of its quarter of the map over the mean of all; a black map gives ones."""
    with torch.inference_mode():
        maps = cnn.features(faces())
        target = cnn.head(maps.mean((2, 3))).argmax(1)
        cam, tokens = cnn.closed_form_cam(faces(), target), cnn.tokens(maps, target)
        torch.testing.assert_close(tokens[:, 0, 1], cam[:, :5, 5:].mean((1, 2)) / cam.mean((1, 2)))
        assert torch.equal(cnn.tokens(torch.zeros_like(maps), target), torch.ones(8, 2, 2))


def test_the_first_stage_trains_the_cnn_of_a_finished_network(cnn: PatchCam, fused: PatchCam) -> None:
    """Started from fused weights, stage "cnn" judges the CNN alone and lets its batch norms learn, as from scratch."""
    stage = METHODS["patch_cam"].stages[0]
    stage.prepare(fused, lambda: iter([]))
    with torch.inference_mode():
        assert torch.equal(fused(faces()), cnn(faces()))
    before = fused.features[1].running_mean.clone()
    stage.loss(fused.train(), faces(), torch.arange(8) % 7, F.cross_entropy)
    assert not torch.equal(fused.features[1].running_mean, before)
    restored = PatchCam(7)
    restored.load_state_dict(fused.state_dict())
    assert not restored.is_fused


def test_the_pca_is_fitted_on_the_training_patches_and_stored(fused: PatchCam) -> None:
    """Mean and components are the training patches', orthonormal, most variance first, and in the state_dict."""
    with torch.inference_mode():
        patches = fused.patches(torch.cat([faces(200, 3), faces(200, 4)])).permute(0, 2, 3, 1).reshape(-1, 256)
    components = fused.pca_components
    torch.testing.assert_close(components @ components.T, torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.pca_mean, patches.mean(0), atol=1e-5, rtol=1e-5)
    variances = ((patches - patches.mean(0)) @ components.T).var(0, correction=0)
    expected = torch.linalg.svdvals((patches - patches.mean(0)).double())[:64].square() / len(patches)
    torch.testing.assert_close(variances, expected.float(), atol=1e-5, rtol=1e-3)
    assert {"pca_mean", "pca_components", "fused"} <= set(fused.state_dict())


def test_reduction_projects_on_the_components(fused: PatchCam) -> None:
    """A patch vector's reduced form is its centred product with the components."""
    with torch.inference_mode():
        vectors = fused.patches(faces())
        by_hand = (vectors[:, :, 1, 0] - fused.pca_mean) @ fused.pca_components.T
        torch.testing.assert_close(fused.reduced(vectors)[:, :, 1, 0], by_hand, atol=1e-5, rtol=1e-4)


def test_fusion_starts_at_the_cnns_logits(cnn: PatchCam, fused: PatchCam) -> None:
    """Right after `fuse` the logits are those of the CNN: the second stage starts from the first one's accuracy."""
    with torch.inference_mode():
        torch.testing.assert_close(fused(faces()), cnn(faces()), atol=1e-5, rtol=1e-5)


def test_the_frozen_cnn_does_not_drift(fused: PatchCam) -> None:
    """Training the fusion leaves the CNN's weights and batch statistics as they were; the fusion's own move."""
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    fused.train()
    optimizer = torch.optim.SGD([*fused.fusion.parameters(), *fused.classifier.parameters()], lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        F.cross_entropy(fused(faces(8, seed)), torch.arange(8) % 7).backward()
        optimizer.step()
    moved = {name.split(".")[0] for name, tensor in fused.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"fusion", "classifier"}


def test_a_checkpoint_says_which_stage_it_is_of(cnn: PatchCam, fused: PatchCam) -> None:
    """Loading a fused state_dict switches a fresh network to the fused logits, and back."""
    fresh = PatchCam(7).eval()
    fresh.load_state_dict(fused.state_dict())
    assert fresh.is_fused
    assert not fresh.train().features.training
    fresh.load_state_dict(cnn.state_dict())
    assert not fresh.is_fused
    assert fresh.train().features.training


def test_the_fused_logits_can_be_explained(fused: PatchCam) -> None:
    """In eval mode a gradient reaches the feature maps of the fused network."""
    kept: list[Tensor] = []
    fused.features.register_forward_hook(lambda *args: kept.append(args[2]))
    (gradient,) = torch.autograd.grad(fused(faces())[:, 0].sum(), kept)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("tokens", "pca"), [(False, True), (True, False), (False, False)])
def test_tokens_and_pca_can_be_switched_off(cnn: PatchCam, tokens: bool, pca: bool) -> None:
    """The ablation's networks run, and without tokens the patches are not weighted."""
    torch.manual_seed(0)
    network = PatchCam(7, tokens=tokens, pca=pca)
    network.fuse(lambda: iter([(faces(40), torch.zeros(40))]))
    network.eval()
    torch.nn.init.normal_(network.classifier.weight)
    with torch.inference_mode():
        out = network(faces())
        network.use_tokens = not tokens
        assert out.shape == (8, 7)
        assert not torch.equal(out, network(faces()))


def test_the_triplet_loss_by_hand() -> None:
    """Four points on the unit circle: squared distances, hardest positive and negative, mean over anchors."""
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]])
    # Neighbours are 2 apart, opposite points 4. Classes 0 0 1 1: positive and nearest negative are both 2 away.
    assert batch_hard_triplet(points, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(0.2)
    # Classes 0 1 0 1: the positive is opposite, 4 away, the negatives are neighbours: 4 - 2 + .2.
    assert batch_hard_triplet(points, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(2.2)
    # Classes 0 0 1 2: only the first two anchors have a positive.
    assert batch_hard_triplet(points, torch.tensor([0, 0, 1, 2])).item() == pytest.approx(0.2)


@pytest.mark.parametrize("targets", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_the_triplet_loss_needs_positives_and_negatives(targets: list[int]) -> None:
    """A batch of one class, or of all different classes, gives 0 with a finite gradient."""
    embedding = torch.randn(4, 8, requires_grad=True)
    loss = batch_hard_triplet(embedding, torch.tensor(targets))
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad.isfinite().all()


def test_the_first_stages_loss_is_the_sum_of_its_three_parts(cnn: PatchCam) -> None:
    """Cross-entropy of the CNN, half that of the patches and half the triplet loss."""
    inputs, targets, criterion = faces(), torch.arange(8) % 3, nn.CrossEntropyLoss()
    with torch.inference_mode():
        deep = cnn.features(inputs).mean((2, 3))
        parts = criterion(cnn(inputs), targets) + 0.5 * batch_hard_triplet(deep, targets)
        parts += 0.5 * criterion(cnn.patch_head(cnn.patches(inputs).flatten(1)), targets)
        torch.testing.assert_close(cnn_loss(cnn, inputs, targets, criterion), parts)
