"""Self-training: the formula in plain PyTorch, and where the gradient goes."""

import pytest
import torch
import torch.nn.functional as F

from gioada_fast.adaptation import frozen
from gioada_fast.depth import align_relative_depth, decode_depth, encode_depth
from gioada_fast.engine.step import Step
from gioada_fast.models.layers import normalise, upsample
from gioada_fast.models.trunks.base import IMAGENET_MEAN, IMAGENET_STD
from gioada_fast.self_training import (
    PseudoLabels,
    class_mix,
    depth_agreement,
    hide_patches,
    pseudo_labels,
    self_training_loss,
)

from .engine.test_step import assert_same, gradients, unequal_batch
from .test_adaptation import CLASSES, make, make_batch

THRESHOLD = 0.3
MASK = {"mask_ratio": 0.6, "mask_patch": 16}
DEPTH = {
    "mix_classes": "depth",
    "mix_order": "depth",
    "lambda_target_depth": 0.5,
    "depth_agreement": True,
}


def make_trained(*levels, **settings):
    """Networks whose teacher differs from the task network and is confident of some pixels."""
    settings = {"self_train_half": False, **settings}
    adaptation = make(*levels, self_training=True, confidence=THRESHOLD, **settings)
    torch.manual_seed(3)
    if adaptation.translation is not None:
        torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    for branch in adaptation.teacher.segmentation.branches:
        torch.nn.init.normal_(branch.weight, std=0.05)
    return adaptation


def mix(adaptation, batch, x_s=None):
    x_s = normalise(batch.source_image) if x_s is None else x_s
    x_t, noise = normalise(batch.target_image), batch.class_mix_noise
    pseudo = pseudo_labels(adaptation.teacher, x_t, x_t.shape[2:], THRESHOLD)
    return class_mix(x_s, batch.source_labels, x_t, noise, pseudo)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_follows_the_formula(weighted):
    adaptation, batch = make_trained("none", "none"), unequal_batch()
    mixed = mix(adaptation, batch)
    logits = torch.randn(2, CLASSES, 9, 13, requires_grad=True)
    weight = torch.rand(CLASSES) + 0.5 if weighted else None
    found = self_training_loss(logits, mixed, weight)

    with torch.no_grad():
        teachers, _ = adaptation.teacher(normalise(batch.target_image))
        p_t, y_t = upsample(teachers, (64, 96)).softmax(1).max(1)
    expected = 0
    for i in range(2):
        y_s = batch.source_labels[i].long()
        present = [c for c in range(CLASSES) if (y_s == c).any()]
        order = sorted(present, key=lambda c: float(batch.class_mix_noise[i, c]))
        chosen = order[: (len(order) + 1) // 2]
        pasted = torch.stack([y_s == c for c in chosen]).any(0)
        q = (p_t[i] > THRESHOLD).float().mean()
        assert 0 < q < 1
        labels = torch.where(pasted, y_s, y_t[i])
        z = upsample(logits[i : i + 1], (64, 96))[0].movedim(0, -1)
        m = pasted.float().mean()
        ce_s, ce_t = (F.cross_entropy(z[part], labels[part], weight) for part in (pasted, ~pasted))
        expected = expected + (m * ce_s + (1 - m) * q * ce_t) / 2
        x_s, x_t = (normalise(x[i : i + 1])[0] for x in (batch.source_image, batch.target_image))
        assert torch.equal(mixed.image[i], torch.where(pasted, x_s, x_t))
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("weighted", [False, True])
def test_masked_consistency_follows_the_formula(weighted):
    adaptation, batch = make_trained("none", "none", **MASK), unequal_batch()
    adaptation.class_weights = torch.linspace(0.5, 1.5, CLASSES) if weighted else None
    seen = []
    adaptation.task.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = adaptation.generators_loss(batch).losses["mask"]

    x_t = normalise(batch.target_image)
    hidden = torch.zeros(2, 64, 96, dtype=torch.bool)
    for i, row, column in (batch.mask_noise < 0.6).nonzero().tolist():
        hidden[i, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = True
    x_h = seen[0][-2:]
    for image, original, where in zip(x_h, x_t, hidden, strict=True):
        assert torch.equal(image[:, ~where], original[:, ~where])
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        shown = ((image[:, where] + 1) / 2 - mean[:, None]) / std[:, None]
        torch.testing.assert_close(shown, torch.zeros_like(shown), atol=1e-6, rtol=0)
    with torch.no_grad():
        teachers, students = adaptation.teacher(x_t)[0], adaptation.task(x_h)[0]
    p_t, y_t = upsample(teachers.double(), (64, 96)).softmax(1).max(1)
    z = upsample(students.double(), (64, 96))
    weight = adaptation.class_weights.double() if weighted else None
    q = (p_t > THRESHOLD).double().mean((1, 2))
    assert ((q > 0) & (q < 1)).all()
    expected = sum(q[i] * F.cross_entropy(z[i : i + 1], y_t[i : i + 1], weight) for i in range(2))
    torch.testing.assert_close(found.double(), expected / 2, rtol=1e-4, atol=1e-6)


def test_the_teacher_runs_once():
    adaptation, runs = make_trained("none", "none", **MASK), []
    adaptation.teacher.register_forward_pre_hook(lambda *_: runs.append(1))
    losses = adaptation.generators_loss(make_batch()).losses
    assert {"self", "mask"} <= set(losses) and len(runs) == 1


def test_half_of_the_pairs_are_enough():
    """Self-training of every other pair is that of a batch of these pairs."""
    settings = {**MASK, **DEPTH}
    whole = make_trained("none", "none", **settings)
    half = make_trained("none", "none", **settings, self_train_half=True)
    batch, sizes = unequal_batch(pairs=5), []
    for adaptation in (whole, half):
        adaptation.task.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = half.generators_loss(batch).losses
    assert sizes == [5 + 5 + 3 + 3]  # source, target for its depth, mixed, masked
    expected = whole.generators_loss(batch.map(lambda x: x[::2])).losses
    for name in ("self", "mask"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6)
    everything = whole.generators_loss(batch).losses
    torch.testing.assert_close(found["seg"], everything["seg"])
    assert found["self"] != everything["self"]


def test_patches_at_the_border_are_cut_off():
    pseudo = PseudoLabels(torch.zeros(1, 5, 7, dtype=torch.uint8), torch.ones(1))
    noise = torch.tensor([[[0.0, 0.5], [0.5, 0.0]]])
    hidden = hide_patches(torch.ones(1, 3, 5, 7), noise, 0.5, 4, torch.zeros(3), pseudo).image
    expected = torch.ones(1, 3, 5, 7)
    expected[..., :4, :4] = expected[..., 4:, 4:] = 0
    assert torch.equal(hidden, expected)


def test_half_of_the_classes_of_each_image_are_pasted_but_no_ignored_pixels():
    adaptation, batch = make_trained("none", "none"), make_batch()
    batch.source_labels[0] = 255
    batch.source_labels[1, :32], batch.source_labels[1, 32:60] = 0, 3
    batch.source_labels[1, 60:] = 255
    mixed = mix(adaptation, batch)
    assert not mixed.pasted[0].any()
    first = 0 if batch.class_mix_noise[1, 0] < batch.class_mix_noise[1, 3] else 3
    assert torch.equal(mixed.pasted[1], batch.source_labels[1] == first)
    batch.source_labels[1] = 2  # the only class
    assert mix(adaptation, batch).pasted[1].all()


def mix_by_depth(d_s, d_t, y_s, y_t, noise=None, **settings):
    """Mask of the pasted pixels of one image [1, W] from encoded depths and labels, as lists."""
    d_s, d_t = (torch.tensor(d, dtype=torch.float32).view(1, 1, 1, -1) for d in (d_s, d_t))
    y_s, y_t = (torch.tensor(y, dtype=torch.uint8).view(1, 1, -1) for y in (y_s, y_t))
    x = torch.zeros(1, 3, *y_s.shape[1:])
    noise = torch.tensor([noise or [0.0, 0.1, 0.2, 0.3]])
    pseudo = PseudoLabels(y_t, torch.ones(1), d_t)
    return class_mix(x, y_s, x, noise, pseudo, (d_s, d_s > 0), **settings).pasted.flatten().tolist()


def test_a_pasted_pixel_stays_only_where_it_is_nearer():
    # class 0 is pasted: nearer, farther, within the margin, no depth of its own
    pasted = mix_by_depth([0.8, 0.2, 0.49, 0.0, 0.9], [0.5] * 5, [0, 0, 0, 0, 1], [0] * 5,
                          nearer_only=True)  # fmt: skip
    assert pasted == [True, False, True, False, False]
    # class 0 has no depth in the source: the teacher's depth of its pixels is not learned
    pasted = mix_by_depth([0.0, 0.0, 0.9], [0.5] * 3, [0, 0, 1], [0, 1, 1], nearer_only=True)
    assert pasted == [True, False, False]
    # without any depth in the source: all of class 0
    assert mix_by_depth([0.0] * 3, [0.5] * 3, [0, 0, 1], [2] * 3, nearer_only=True) == [
        True, True, False,
    ]  # fmt: skip
    assert mix_by_depth([0.9], [0.1], [255], [0], nearer_only=True, by_depth=True) == [False]


def test_the_classes_whose_depth_agrees_are_pasted():
    d_s, d_t = [0.9, 0.8, 0.3, 0.4, 0.6], [0.1, 0.2, 0.4, 0.4, 0.6]
    pasted = mix_by_depth(d_s, d_t, [0, 0, 1, 1, 2], [3] * 5, by_depth=True)
    assert pasted == [False, False, True, True, True]  # two of three classes
    pasted = mix_by_depth(d_s, d_t, [0, 0, 1, 1, 255], [3] * 5, by_depth=True)
    assert pasted == [False, False, True, True, False]
    # without depth, the random numbers choose
    noise = [0.9, 0.1, 0.2, 0.0]
    assert mix_by_depth([0.0] * 2, d_t[:2], [0, 1], [3] * 2, noise, by_depth=True) == [False, True]


def test_pseudo_labels_count_as_their_depth_agrees():
    adaptation, batch = make_trained("none", "none", **MASK, depth_agreement=True), make_batch()
    adaptation.class_weights = torch.linspace(0.5, 1.5, CLASSES)
    seen = []
    adaptation.task.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses = adaptation.generators_loss(batch).losses
    x_t, weight = normalise(batch.target_image), adaptation.class_weights.double()
    with torch.no_grad():
        logits_t, depth_t = adaptation.teacher(x_t)
        students = adaptation.task(seen[0])[0]
    p_t, y_t = upsample(logits_t.double(), (64, 96)).softmax(1).max(1)
    metres = decode_depth(upsample(depth_t.double(), (64, 96)), "log")[:, 0]
    z_map = batch.target_depth[:, 0].double().clamp(2)
    a = torch.minimum(metres, z_map) / torch.maximum(metres, z_map)
    a = torch.where(batch.target_depth[:, 0] > 0, a, 1.0)
    assert (a[:, :12] == 1).all() and float(a.min()) < 0.5
    q = (p_t > THRESHOLD).double().mean((1, 2))
    z = upsample(students.double(), (64, 96))
    pasted, y_s = mix(adaptation, batch).pasted, batch.source_labels.long()
    mask, self_ = 0, 0
    for i in range(2):
        ce = F.cross_entropy(z[4 + i : 5 + i], y_t[i : i + 1], weight, reduction="none")[0]
        w = weight[y_t[i]] * a[i]
        mask = mask + q[i] * (a[i] * ce).sum() / w.sum() / 2
        m, labels = pasted[i], torch.where(pasted[i], y_s[i], y_t[i])
        ce = F.cross_entropy(z[2 + i : 3 + i], labels[None], weight, reduction="none")[0]
        w_s, w_t = weight[labels[m]].sum(), (weight[labels] * a[i])[~m].sum()
        part = m.double().mean()
        self_ = self_ + part * ce[m].sum() / w_s / 2
        self_ = self_ + (1 - part) * q[i] * (a[i] * ce)[~m].sum() / w_t / 2
    torch.testing.assert_close(losses["mask"].double(), mask, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses["self"].double(), self_, rtol=1e-4, atol=1e-6)
    one, far = torch.ones(1, 1, 1, 2), torch.tensor([[[[4.0, 0.0]]]])
    ratio = depth_agreement(one, far, "log")
    assert ratio.flatten().tolist() == [0.5, 1.0]


@pytest.mark.parametrize("output_level", ["none", "joint"])
@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_the_depth_loss_on_the_target_follows_the_formula(output_level, kind):
    adaptation = make("none", output_level, lambda_target_depth=0.5, depth_loss=kind)
    batch = make_batch()
    batch.target_depth[1] = 0
    losses = adaptation.generators_loss(batch).losses
    _, depth = adaptation.task(normalise(batch.target_image))
    d_t, valid = encode_depth(batch.target_depth, "log")
    error = (upsample(depth.double(), (64, 96)) - d_t)[0][valid[0]].abs()
    expected = (error if kind == "l1" else error**2).mean() / 2  # the other image has no depth
    torch.testing.assert_close(losses["target_depth"].double(), expected, rtol=1e-4, atol=1e-6)
    losses["target_depth"].backward()
    assert float(next(adaptation.task.trunk.parameters()).grad.abs().sum()) > 0


def test_relative_depth_is_aligned_to_the_prediction():
    metres = torch.rand(2, 1, 8, 9) * 100 + 3
    relative = (1 / metres) * 500 + 7
    relative[:, :, 0] = 0
    encoded, _ = encode_depth(metres, "log")
    aligned = align_relative_depth(relative, encoded, "log")
    assert not aligned[:, :, 0].any()
    torch.testing.assert_close(aligned[:, :, 1:], metres[:, :, 1:], rtol=1e-2, atol=0)
    assert not align_relative_depth(100 - relative, encoded, "log").any()  # larger is farther
    adaptation = make("none", "none", lambda_target_depth=0.5)
    adaptation.relative_target_depth = True
    assert torch.isfinite(adaptation.generators_loss(make_batch()).losses["target_depth"])


@pytest.mark.parametrize("levels", [("none", "none"), ("geometry", "joint")])
def test_neither_the_teacher_nor_the_mixed_image_gets_a_gradient(levels):
    adaptation = make_trained(*levels, lambda_depth=0.1, lambda_img=10, lambda_out=0.05)
    with frozen(adaptation.image_discriminator, adaptation.output_discriminator):
        losses = adaptation.generators_loss(make_batch()).losses
    total = losses["seg"] + 0.1 * losses["depth"] + losses["self"]
    total = total + 10 * losses.get("img", 0) + 0.05 * losses.get("out", 0)
    torch.testing.assert_close(losses["total"], total)
    losses["self"].backward()
    assert all(p.grad is None and not p.requires_grad for p in adaptation.teacher.parameters())
    trunk = next(adaptation.task.trunk.parameters())
    assert float(trunk.grad.abs().sum()) > 0
    if adaptation.translation is not None:
        # not None but zero, because source and mixed image share a batch of the task network
        assert all(not p.grad.any() for p in adaptation.translation.parameters())


def test_the_loss_on_the_mixed_image_uses_the_class_weights():
    adaptation, batch = make_trained("none", "none"), make_batch()
    equal = adaptation.generators_loss(batch).losses["self"]
    adaptation.class_weights = torch.linspace(0.5, 1.5, CLASSES)
    weighted = adaptation.generators_loss(batch).losses["self"]
    logits, _ = adaptation.task(mix(adaptation, batch).image)
    expected = self_training_loss(logits, mix(adaptation, batch), adaptation.class_weights)
    assert weighted != equal
    torch.testing.assert_close(weighted, expected)


def test_the_mixed_image_contains_the_translated_source(monkeypatch):
    adaptation, seen = make_trained(), []
    adaptation.task.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    batch = make_batch()
    adaptation.generators_loss(batch)
    x_s, _, x_m = seen[0].chunk(3)
    assert not torch.allclose(x_s, normalise(batch.source_image))
    assert torch.equal(x_m, mix(adaptation, batch, x_s).image)


def test_the_teacher_is_the_moving_average_of_the_task_network():
    adaptation = make("none", "joint", self_training=True, teacher_decay=0.9)
    adaptation.start_teacher()
    expected = {name: p.clone() for name, p in adaptation.task.named_parameters()}
    optimiser = torch.optim.SGD(adaptation.task.parameters(), lr=0.1)
    update = Step(adaptation, {"task": optimiser}, "fp32")
    for _ in range(3):
        update([make_batch()])
        for name, p in adaptation.task.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * p.detach()
    for name, p in adaptation.teacher.named_parameters():
        torch.testing.assert_close(p, expected[name])
    task = dict(adaptation.task.named_parameters())
    assert any(not torch.equal(p, task[name]) for name, p in adaptation.teacher.named_parameters())


def test_without_a_target_there_is_no_self_training():
    adaptation = make_trained()
    before = adaptation.teacher.trunk.state_dict()
    assert set(adaptation.generators_loss(make_batch(target=False)).losses) == {
        "seg", "depth", "total",
    }  # fmt: skip
    optimiser = torch.optim.SGD(adaptation.task.parameters(), lr=0.1)
    Step(adaptation, {"task": optimiser}, "fp32", adapts=False)([make_batch(target=False)])
    for name, value in adaptation.teacher.trunk.state_dict().items():
        assert torch.equal(value, before[name])


# the order by depth compares numbers that differ by rounding between batches: a few pixels of a
# mixed image change sides
@pytest.mark.parametrize(
    ("settings", "rtol"), [({"lambda_img": 10}, 1e-4), ({**MASK, **DEPTH}, 1e-3)]
)
@pytest.mark.parametrize("levels", [("none", "none"), ("geometry", "joint")])
def test_accumulated_batches_have_the_gradient_of_one_large_batch(levels, settings, rtol):
    """The images differ in their numbers of pasted and of confident pixels."""
    adaptation, batch = make_trained(*levels, **settings), unequal_batch(pairs=4)
    whole = gradients(adaptation, [batch])
    halves = [batch.map(lambda x: x[:2]), batch.map(lambda x: x[2:])]
    assert_same(gradients(adaptation, halves), whole, rtol=rtol)


@pytest.mark.slow
def test_the_compiled_step_has_no_graph_break_and_the_same_gradient():
    adaptation, batch = make_trained("none", "joint", **MASK, **DEPTH), make_batch()
    plain = gradients(adaptation, [batch])
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = gradients(adaptation, [batch], compile=True)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_same(compiled, plain)
