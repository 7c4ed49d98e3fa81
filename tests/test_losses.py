import pytest
import torch
import torch.nn.functional as F

from gioada_fast.depth import ENCODINGS, FAR, NEAR, decode_depth, encode_depth
from gioada_fast.losses import GAN_LOSSES, depth_loss, gan_loss


def test_depth_loss_is_the_mean_over_valid_pixels():
    depth = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    target = torch.tensor([[[[1.0, 1.0], [7.0, 1.0]]]])
    valid = torch.tensor([[[[True, True], [False, True]]]])
    assert float(depth_loss(depth, target, valid, "l1")) == pytest.approx((1 + 0 + 2) / 3)
    # berHu: c = max error / 5 = 0.4 over the valid pixels
    berhu = ((1 + 0.16) / 0.8 + 0 + (4 + 0.16) / 0.8) / 3
    assert float(depth_loss(depth, target, valid, "berhu")) == pytest.approx(berhu)


def test_gan_losses_by_their_formulas():
    x = torch.tensor([-2.0, 0.5, 3.0])
    ones = torch.ones(3)
    assert torch.equal(gan_loss(x, True, "lsgan"), F.mse_loss(x, ones))
    assert torch.equal(gan_loss(x, False, "lsgan"), F.mse_loss(x, 0 * ones))
    for real in (True, False):
        torch.testing.assert_close(
            gan_loss(x, real, "bce"), F.binary_cross_entropy_with_logits(x, ones * real)
        )
    assert float(gan_loss(x, True, "hinge")) == pytest.approx((3 + 0.5 + 0) / 3)
    assert float(gan_loss(x, False, "hinge")) == pytest.approx((0 + 1.5 + 4) / 3)
    assert float(gan_loss(x, True, "hinge", generator=True)) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="lsgan, bce, hinge"):
        gan_loss(x, True, "wgan")


@pytest.mark.parametrize("kind", GAN_LOSSES)
@pytest.mark.parametrize("real", [True, False])
def test_generator_pushes_logits_towards_its_target(kind, real):
    x = torch.full((4,), 0.5, requires_grad=True)
    gan_loss(x, real, kind, generator=True).backward()
    assert bool((x.grad < 0).all() if real else (x.grad > 0).all())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_depth_encodings_fall_from_1_to_0_and_come_back(encoding):
    metres = torch.tensor([NEAR, 5.0, 40.0, 300.0, FAR])
    encoded, valid = encode_depth(metres, encoding)
    assert valid.all() and float(encoded[0]) == pytest.approx(1)
    assert bool((encoded.diff() < 0).all()) and float(encoded[-1]) >= -1e-6
    torch.testing.assert_close(decode_depth(encoded, encoding), metres, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_depth_is_not_valid_and_encoded_as_0(encoding):
    encoded, valid = encode_depth(torch.tensor([0.0, 655.35, 1000.0, 1.0]), encoding)
    assert valid.tolist() == [False, False, False, True]
    assert encoded.tolist()[:3] == [0, 0, 0] and float(encoded[3]) == pytest.approx(1)
