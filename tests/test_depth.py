"""The depth loss, the encodings of depth, and the normals from it."""

import pytest
import torch

from gioada_fast.adaptation import StepTensors, TaskOutput
from gioada_fast.adaptation import depth_loss as depth_term
from gioada_fast.config import AdaptationConfig
from gioada_fast.depth import (
    ENCODINGS,
    FAR,
    NEAR,
    decode_depth,
    encode_depth,
    surface_normals,
)


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


SIZE = (48, 80)
RAYS = torch.stack(
    [
        (torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2).expand(SIZE) / SIZE[1],
        (torch.arange(SIZE[0]) - (SIZE[0] - 1) / 2).unsqueeze(1).expand(SIZE) / SIZE[1],
        torch.ones(SIZE),
    ]
)
"""Points at 1 metre depth, float32 [3, H, W], of a camera whose focal length is the width."""


def plane(normal, distance):
    """Depth [1, 1, H, W] of the plane n . X = -distance, 0 where it is not in front."""
    cosine = -torch.einsum("c,chw->hw", torch.tensor(normal), RAYS)
    depth = torch.where(cosine > 0.01, distance / cosine, 0.0)
    return torch.where(depth < 300, depth, 0.0)[None, None]


@pytest.mark.parametrize(
    ("normal", "distance"),
    [
        ((0.0, 0.0, -1.0), 10.0),  # faces the camera
        ((0.0, -1.0, 0.0), 1.5),  # ground
        ((0.8, 0.0, -0.6), 6.0),  # wall on the left
        ((0.0, 0.6, -0.8), 4.0),  # overhangs
    ],
)
def test_a_plane_has_one_normal(normal, distance):
    depth = plane(normal, distance)
    found = surface_normals(depth)[0].permute(1, 2, 0)
    visible = depth[0, 0] > 0
    expected = torch.tensor(normal).expand_as(found)[visible]
    torch.testing.assert_close(found[visible], expected, rtol=0, atol=5e-3)
    assert not found[~visible].any()
    # in whole centimetres, as files have it
    found = surface_normals((depth * 100).round() / 100)[0].permute(1, 2, 0)
    assert float((found[visible] * expected).sum(1).min()) > 0.99


def test_the_normals_of_a_sphere_point_away_from_its_centre():
    centre, radius = torch.tensor([0.5, -0.2, 8.0]), 2.0
    unit = RAYS / RAYS.norm(dim=0)
    along = torch.einsum("c,chw->hw", centre, unit)
    inside = along**2 - centre @ centre + radius**2
    depth = torch.where(inside > 0.5, (along - inside.clamp(min=0).sqrt()) * unit[2], 0.0)
    found = surface_normals(depth[None, None])[0]
    expected = (RAYS * depth - centre[:, None, None]) / radius
    cosine = (found * expected).sum(0)[depth > 0]
    assert float(cosine.mean()) > 0.99 and float(cosine.min()) > 0.9
    assert not found[:, depth == 0].any()


def test_normals_do_not_smear_over_an_edge():
    front, ground = ((0.0, 0.0, -1.0), 3.0), ((0.0, -1.0, 0.0), 1.5)
    depth = plane(*ground)
    depth[..., 10:40, 30:50] = plane(*front)[..., 10:40, 30:50]
    found = surface_normals(depth)[0]
    visible = depth[0, 0] > 0
    for normal, _ in (front, ground):
        difference = (found - torch.tensor(normal)[:, None, None]).norm(dim=0)
        visible = visible & (difference > 0.05)
    assert not visible.any()


def test_normals_of_mirrored_depth_are_mirrored_and_no_image_sees_another():
    depth = torch.rand(3, 1, *SIZE) * 40
    depth[depth < 8] = 0
    depth[0, :, 10] = 2 * FAR
    found = surface_normals(depth)
    assert found.dtype == torch.float32 and not found[0, :, 10].any()
    lengths = found.norm(dim=1, keepdim=True)
    torch.testing.assert_close(lengths, ((depth > 0) & (depth <= FAR)).float())
    mirrored = surface_normals(depth.flip(3)).flip(3) * torch.tensor([-1, 1, 1]).view(3, 1, 1)
    torch.testing.assert_close(mirrored, found)
    assert torch.equal(surface_normals(depth[1:2]), found[1:2])
