"""The depth loss and the encodings of depth."""

import pytest
import torch

from gioada_fast.adaptation import StepTensors, TaskOutput
from gioada_fast.adaptation import depth_loss as depth_term
from gioada_fast.config import AdaptationConfig
from gioada_fast.depth import ENCODINGS, FAR, NEAR, decode_depth, encode_depth


def depth_loss(depth, target, valid, kind):
    """L_depth of the objective, called with only the tensors that it needs."""
    tensors = dict.fromkeys(StepTensors._fields)
    tensors |= {"source": TaskOutput(None, depth), "d_s": target, "valid": valid}
    return depth_term(StepTensors(**tensors), AdaptationConfig(depth_loss=kind))


def test_depth_loss_is_the_mean_over_valid_pixels():
    depth = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    target = torch.tensor([[[[1.0, 1.0], [7.0, 1.0]]]])
    valid = torch.tensor([[[[True, True], [False, True]]]])
    assert float(depth_loss(depth, target, valid, "l1")) == pytest.approx((1 + 0 + 2) / 3)
    # berHu: c = max error / 5 = 0.4 over the valid pixels
    berhu = ((1 + 0.16) / 0.8 + 0 + (4 + 0.16) / 0.8) / 3
    assert float(depth_loss(depth, target, valid, "berhu")) == pytest.approx(berhu)


@pytest.mark.parametrize("kind", ["l1", "berhu"])
def test_depth_loss_and_its_gradient_are_zero_without_a_valid_pixel(kind):
    depth = torch.randn(1, 1, 3, 3, requires_grad=True)
    target = torch.full((1, 1, 9, 9), float("nan"))
    loss = depth_loss(depth, target, torch.zeros(1, 1, 9, 9, dtype=torch.bool), kind)
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(depth.grad, torch.zeros_like(depth))


@pytest.mark.parametrize("kind", ["l1", "berhu"])
def test_depth_loss_gradient_equals_finite_differences(kind):
    depth = torch.randn(2, 1, 3, 4, requires_grad=True)
    target, valid = torch.randn(2, 1, 7, 8), torch.rand(2, 1, 7, 8) > 0.3
    loss = depth_loss(depth, target, valid, kind)
    (gradient,) = torch.autograd.grad(loss, depth)
    eps = 1e-2
    delta = torch.zeros_like(depth)
    delta[1, 0, 1, 2] = eps
    with torch.no_grad():
        up = depth_loss(depth + delta, target, valid, kind)
        down = depth_loss(depth - delta, target, valid, kind)
    assert float((up - down) / (2 * eps)) == pytest.approx(float(gradient[1, 0, 1, 2]), abs=2e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_depth_encodings_decrease_from_1_to_0_and_can_be_decoded(encoding):
    metres = torch.tensor([NEAR, 5.0, 40.0, 300.0, FAR])
    encoded, valid = encode_depth(metres, encoding)
    assert valid.all() and float(encoded[0]) == pytest.approx(1)
    assert bool((encoded.diff() < 0).all()) and float(encoded[-1]) >= -1e-6
    torch.testing.assert_close(decode_depth(encoded, encoding), metres, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_missing_depth_is_invalid_and_encoded_as_0(encoding):
    encoded, valid = encode_depth(torch.tensor([0.0, 655.35, 1000.0, 1.0]), encoding)
    assert valid.tolist() == [False, False, False, True]
    assert encoded.tolist()[:3] == [0, 0, 0] and float(encoded[3]) == pytest.approx(1)
