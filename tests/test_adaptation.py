import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F

import gioada_fast.adaptation
from gioada_fast.adaptation import (
    TERMS,
    Batch,
    Term,
    TwoLevelAdaptation,
    frozen,
    information_times_depth,
)
from gioada_fast.config import AdaptationConfig, ModelConfig
from gioada_fast.depth import encode_depth, surface_normals
from gioada_fast.engine.step import Step
from gioada_fast.models.layers import normalise, upsample
from gioada_fast.ops import gan_loss

from .commands import command
from .miniature import SMALL_MODEL, flags, write_street_scenes

CLASSES = 4
ROWS = list(itertools.product(("none", "image", "geometry"), ("none", "semantics", "joint")))
ROWS += [("normals", "product")]


def make(input_level="geometry", output_level="joint", **settings):
    torch.manual_seed(0)
    config = AdaptationConfig(input_level=input_level, output_level=output_level, **settings)
    return TwoLevelAdaptation(CLASSES, config, ModelConfig(**SMALL_MODEL))


def make_batch(target=True, pairs=2):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, pairs, 3, 64, 96), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (pairs, 64, 96), dtype=torch.uint8, generator=generator)
    labels[:, :4] = 255
    depth = torch.rand(pairs, 1, 64, 96, generator=generator) * 100
    depth[:, :, :8] = 0
    noise = torch.rand(pairs, CLASSES, generator=generator)
    patches = torch.rand(pairs, 4, 6, generator=generator)
    depth_t = torch.rand(pairs, 1, 64, 96, generator=generator) * 100
    depth_t[:, :, :12] = 0
    images_t, depth_t = (images[1], depth_t) if target else (None, None)
    return Batch(images[0], labels, depth, images_t, noise, patches, depth_t)


def with_labelled(batch):
    """The batch with labelled target images: the source's labels, mirrored, on the target."""
    labelled = {
        "labelled_image": batch.target_image,
        "labelled_labels": batch.source_labels.flip(2),
    }
    return batch._replace(**labelled)


@pytest.mark.parametrize(("input_level", "output_level"), ROWS)
def test_each_row_of_the_ablation_has_its_terms(input_level, output_level):
    weights = {"lambda_depth": 0.1, "lambda_img": 10.0, "lambda_out": 0.05}
    generated = make(input_level, output_level, **weights).generators_loss(make_batch())
    expected = {"seg", "depth", "total"}
    expected |= {"img"} if input_level != "none" else set()
    expected |= {"out"} if output_level != "none" else set()
    assert set(generated.losses) == expected
    losses = generated.losses
    total = losses["seg"] + 0.1 * losses["depth"]
    total = total + 10 * losses.get("img", 0) + 0.05 * losses.get("out", 0)
    torch.testing.assert_close(losses["total"], total)


@pytest.mark.parametrize(("input_level", "output_level"), ROWS)
def test_generators_train_and_discriminators_do_not(input_level, output_level):
    adaptation = make(input_level, output_level)
    with frozen(adaptation.image_discriminator, adaptation.output_discriminator):
        generated = adaptation.generators_loss(make_batch())
    generated.losses["total"].backward()
    for name in ("image_discriminator", "output_discriminator"):
        network = getattr(adaptation, name)
        if network is not None:
            assert all(p.grad is None and p.requires_grad for p in network.parameters())
    trained = [adaptation.task, adaptation.translation]
    for network in filter(None, trained):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    losses = adaptation.discriminators_loss(generated)
    adaptation.zero_grad()
    if losses:
        sum(losses.values()).backward()
    assert all(p.grad is None for network in filter(None, trained) for p in network.parameters())
    for name, network in (
        ("d_img", adaptation.image_discriminator),
        ("d_out", adaptation.output_discriminator),
    ):
        assert (name in losses) == (network is not None)
        if network is not None:
            assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("term", ["seg", "depth", "img", "out"])
def test_every_term_reaches_the_translation_network(term):
    adaptation = make()
    torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    adaptation.generators_loss(make_batch()).losses[term].backward()
    first = adaptation.translation.encoder[1].weight
    assert float(first.grad.abs().sum()) > 0


def test_the_output_loss_has_a_gradient_for_source_and_target():
    adaptation = make("none", "joint")
    seen = []
    adaptation.output_discriminator.register_forward_pre_hook(
        lambda _, inputs: inputs[0].retain_grad() or seen.append(inputs[0])
    )
    adaptation.generators_loss(make_batch()).losses["out"].backward()
    source, target = seen[0].grad.chunk(2)
    assert float(source.abs().sum()) > 0 and float(target.abs().sum()) > 0


def test_one_call_computes_all_gan_losses_of_a_side(monkeypatch):
    """Each term is the mean over its maps of the loss against real or fake."""
    adaptation, calls = make(), []

    def spy(maps, real, kind, generator):
        calls.append((maps, real, generator))
        return gan_loss(maps, real, kind, generator)

    monkeypatch.setattr("gioada_fast.adaptation.gan_loss", spy)
    generated = adaptation.generators_loss(make_batch())
    losses = generated.losses | adaptation.discriminators_loss(generated)
    (maps, real, generator), (d_maps, d_real, d_generator) = calls
    assert real == (True, True, False) and generator
    assert d_real == (True, False, True, False) and not d_generator
    img, target, source = (((x - int(r)) ** 2).mean() for x, r in zip(maps, real, strict=True))
    torch.testing.assert_close(losses["img"], img)
    torch.testing.assert_close(losses["out"], (source + target) / 2)
    means = [((x - int(r)) ** 2).mean() for x, r in zip(d_maps, d_real, strict=True)]
    torch.testing.assert_close(losses["d_img"], sum(means[:2]) / 2)
    torch.testing.assert_close(losses["d_out"], sum(means[2:]) / 2)
    # D_img should call the target real, D_out the output for the source
    with torch.no_grad():
        translated, target = generated.images
        torch.testing.assert_close(d_maps[0], adaptation.image_discriminator(target))
        torch.testing.assert_close(d_maps[1], adaptation.image_discriminator(translated))
        source, target = generated.outputs.chunk(2)
        torch.testing.assert_close(d_maps[2], adaptation.output_discriminator(source))
        torch.testing.assert_close(d_maps[3], adaptation.output_discriminator(target))


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
@pytest.mark.parametrize("input_level", ["image", "geometry"])
def test_every_other_source_image_stays_untranslated(input_level, pairs):
    """Looks at the inputs of the task network and of the discriminators.

    A batch of one image is translated.
    """
    adaptation, batch = make(input_level, "joint"), make_batch(pairs=pairs)
    torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    seen = []
    adaptation.task.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generated = adaptation.generators_loss(batch)
    x_s, x_t = seen[0].split(pairs)
    depth, _ = encode_depth(batch.source_depth, adaptation.config.depth_encoding)
    with torch.no_grad():
        translated = adaptation.translation(batch.source_image, depth, batch.source_labels)
    rendered = normalise(batch.source_image)
    assert float((translated - rendered).abs().max()) > 1e-3
    torch.testing.assert_close(x_s[::2], translated[::2])
    torch.testing.assert_close(x_s[1::2], rendered[1::2], rtol=0, atol=0)
    fake, real = generated.images
    torch.testing.assert_close(fake, translated[::2])
    torch.testing.assert_close(real, x_t[::2])
    assert generated.outputs.shape[0] == 2 * pairs

    whole = make(input_level, "joint", keep_half_untranslated=False)
    whole.load_state_dict(adaptation.state_dict())
    whole.task.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fake, real = whole.generators_loss(batch).images
    torch.testing.assert_close(seen[1][:pairs], translated)
    assert fake.shape[0] == real.shape[0] == pairs


def test_the_translation_network_sees_the_normals_of_the_source():
    adaptation, batch, seen = make("normals"), make_batch(), []
    adaptation.translation.encoder.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    adaptation.generators_loss(batch)
    assert seen[0].shape[1] == 3 + 1 + CLASSES + 3
    assert torch.equal(seen[0][:, -3:], surface_normals(batch.source_depth[::2]))


@pytest.mark.parametrize("output_level", ["none", "joint"])
def test_the_image_discriminator_may_see_the_predicted_depth(output_level):
    """Both losses see the same; no gradient passes through the depth."""
    adaptation = make("geometry", output_level, image_discriminator_input="depth")
    torch.nn.init.normal_(adaptation.translation.to_image.weight, std=0.01)
    batch, seen = make_batch(pairs=3), []
    adaptation.image_discriminator.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    generated = adaptation.generators_loss(batch)
    adaptation.discriminators_loss(generated)
    source, target = generated.images
    assert torch.equal(seen[0], source) and torch.equal(seen[1], torch.cat([source, target]))
    assert torch.equal(target[:, :3], normalise(batch.target_image)[::2])
    for images in generated.images:
        with torch.no_grad():
            _, depth = adaptation.task(images[:, :3])
        torch.testing.assert_close(images[:, 3:], upsample(depth, (64, 96)))
    generated.losses["img"].backward()
    task = [p.grad for p in adaptation.task.parameters()]
    assert not any(grad is not None and grad.any() for grad in task)
    assert adaptation.translation.encoder[1].weight.grad.any()


def test_predicting_depth_for_the_image_discriminator_keeps_the_gradients_under_autocast():
    """Autocast may reuse cast weights, which have no gradient if a pass without came first."""
    grads = []
    for seen in ("image", "depth"):
        adaptation = make("geometry", "none", image_discriminator_input=seen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = adaptation.generators_loss(make_batch()).losses
        losses["seg"].backward()
        grads.append([p.grad for p in adaptation.task.parameters()])
    for plain, with_depth in zip(*grads, strict=True):
        assert plain is with_depth is None or torch.equal(plain, with_depth)


def test_the_output_discriminator_may_see_information_times_depth():
    """Also where a probability is 0; both heads get a gradient."""
    joint = torch.tensor([0.5, 0.5, 0.0, 0.8]).view(1, 4, 1, 1).requires_grad_()
    found = information_times_depth(joint)
    information = 0.5 * math.log(2) / math.log(3)
    torch.testing.assert_close(found.flatten(), torch.tensor([information, information, 0]) * 0.8)
    found.sum().backward()
    assert joint.grad.isfinite().all() and joint.grad[0, 3] == pytest.approx(2 * information)

    adaptation, seen = make("none", "product"), []
    adaptation.output_discriminator.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    generated = adaptation.generators_loss(make_batch())
    assert seen[0].shape == (4, CLASSES, 64, 96)
    logits, depth = adaptation.task(normalise(make_batch().source_image))
    log_p = upsample(logits, (64, 96)).log_softmax(1)
    expected = -log_p.exp() * log_p / math.log(CLASSES) * upsample(depth, (64, 96))
    torch.testing.assert_close(seen[0][:2], expected, rtol=1e-4, atol=1e-5)
    generated.losses["out"].backward()
    for head in (adaptation.task.segmentation, adaptation.task.depth):
        assert any(p.grad.any() for p in head.parameters())


def test_without_a_target_both_levels_are_off():
    generated = make().generators_loss(make_batch(target=False))
    assert set(generated.losses) == {"seg", "depth", "total"}
    assert generated.images is None and generated.outputs is None


def test_one_pass_over_source_and_target_equals_two_passes():
    adaptation, batch = make("none", "joint").double(), make_batch()
    task = adaptation.task
    x_s, x_t = normalise(batch.source_image).double(), normalise(batch.target_image).double()
    both = task(torch.cat([x_s, x_t]))
    for joint, source, target in zip(both, task(x_s), task(x_t), strict=True):
        torch.testing.assert_close(joint, torch.cat([source, target]))


@pytest.mark.parametrize("kind", ["lsgan", "bce", "hinge"])
def test_discriminators_learn_to_separate_real_from_fake(kind):
    adaptation = make(gan_loss=kind)
    networks = (adaptation.image_discriminator, adaptation.output_discriminator)
    optimiser = torch.optim.Adam([p for n in networks for p in n.parameters()], lr=2e-3)
    generated = adaptation.generators_loss(make_batch())
    history = []
    for _ in range(40):
        losses = adaptation.discriminators_loss(generated)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ("d_img", "d_out"):
        assert history[-1][name] < 0.8 * history[0][name]


def entropy_loss(t, config):
    """Mean entropy of the predictions for the target, as in ADVENT."""
    log_p = t.target.logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


ENTROPY = Term("entropy", "L_ent", lambda c: 0.5 * c.lambda_out, "pairs", entropy_loss, "target")


@pytest.fixture
def entropy_term():
    """Add a term for one test: one function and one row of ``TERMS``."""
    TERMS.append(ENTROPY)
    yield
    TERMS.remove(ENTROPY)


def test_a_new_term_is_trained_and_logged_and_enters_the_total_with_its_weight(
    entropy_term, tmp_path
):
    write_street_scenes(tmp_path / "scenes")
    settings = {
        "schedule.source_only_steps": 1,
        "schedule.adaptation_steps": 3,
        "schedule.log_every": 1,
        "adaptation.lambda_img": 10,
        "adaptation.lambda_out": 0.2,
    }
    arguments = flags(tmp_path / "scenes", tmp_path / "runs", **settings)
    done = command("train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs" / "mini" / "metrics.jsonl").read_text().splitlines()
    first, *updates = (r for r in map(json.loads, lines) if "loss/total" in r)
    assert "loss/entropy" not in first and len(updates) == 3
    weights = {"seg": 1, "depth": 1.0, "img": 10.0, "out": 0.2, "entropy": 0.1}
    for record in updates:
        total = sum(weight * record[f"loss/{name}"] for name, weight in weights.items())
        assert record["loss/total"] == pytest.approx(total, rel=1e-5)
        assert 0 < record["loss/entropy"] <= math.log(11) + 1e-5


def test_a_new_term_is_scaled_when_batches_are_accumulated(entropy_term):
    adaptation, batch = make("none", "joint"), make_batch(pairs=4)
    whole = Step(adaptation, {}, "fp32").gradients([batch])["entropy"]
    halves = [batch.map(lambda x: x[:2]), batch.map(lambda x: x[2:])]
    torch.testing.assert_close(Step(adaptation, {}, "fp32").gradients(halves)["entropy"], whole)


def test_labelled_target_images_have_a_loss_of_their_own():
    """Cross-entropy, mean over the images of the mean over their labelled pixels."""
    adaptation, batch = make("none", "none", lambda_labelled=0.5), with_labelled(make_batch())
    batch.labelled_labels[0, 30:] = 255
    batch.labelled_labels[1] = 255  # an image without labels counts as 0
    adaptation.class_weights = torch.tensor([0.5, 1.0, 1.5, 2.0])
    losses = adaptation.generators_loss(batch).losses
    logits, _ = adaptation.task(normalise(batch.labelled_image))
    expected = F.cross_entropy(
        upsample(logits, (64, 96))[:1],
        batch.labelled_labels[:1].long(),
        adaptation.class_weights,
        ignore_index=255,
    )
    torch.testing.assert_close(losses["labelled"], expected / 2)
    total = losses["seg"] + losses["depth"] + 0.5 * losses["labelled"]
    torch.testing.assert_close(losses["total"], total)
    without = adaptation.generators_loss(make_batch()).losses
    assert "labelled" not in without
    torch.testing.assert_close(without["depth"], losses["depth"])


def test_names_of_terms_are_unique_and_their_symbols_are_in_the_formula():
    names = [term.name for term in TERMS]
    assert len({*names, "total", "d_img", "d_out"}) == len(names) + 3
    formula, _, _ = gioada_fast.adaptation.__doc__.partition("Source:")
    assert all(term.symbol in formula for term in TERMS)
