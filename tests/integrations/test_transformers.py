"""Models of transformers, small and with random weights: fused, they compute and train the same."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from gioada_fast.integrations import transformers as integration
from gioada_fast.integrations.transformers import MODELS, fuse_loss, unfuse_loss

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'gioada_fast[transformers]'"
)
from transformers import (  # noqa: E402
    BeitConfig,
    ConvNextConfig,
    Data2VecVisionConfig,
    DPTConfig,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    SegformerConfig,
    UperNetConfig,
)

CLASSES = 7
SIZE = 64
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
    "patch_size": 8,
}


def _upernet(**settings) -> UperNetConfig:
    backbone = ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        auxiliary_channels=8,
        auxiliary_in_channels=16,
        **settings,
    )


def _sapiens2(**settings):
    head = transformers.Sapiens2HeadConfig(upsample_out_channels=[8], conv_out_channels=[8])
    return transformers.Sapiens2Config(**VIT, head_config=head, **settings)


def _tipsv2(**settings):
    backbone = transformers.Tipsv2VisionConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return transformers.Tipsv2DptConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        **settings,
    )


CONFIGS = {
    "BeitForSemanticSegmentation": lambda **settings: BeitConfig(
        **VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8, **settings
    ),
    "DPTForSemanticSegmentation": lambda **settings: DPTConfig(
        **VIT,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        **settings,
    ),
    "Data2VecVisionForSemanticSegmentation": lambda **settings: Data2VecVisionConfig(
        **VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8, **settings
    ),
    "MobileNetV2ForSemanticSegmentation": lambda **settings: MobileNetV2Config(
        depth_multiplier=0.1, **settings
    ),
    "MobileViTForSemanticSegmentation": lambda **settings: MobileViTConfig(
        hidden_sizes=[16] * 3,
        neck_hidden_sizes=[8] * 6 + [16],
        num_attention_heads=2,
        aspp_out_channels=8,
        image_size=SIZE,
        **settings,
    ),
    "MobileViTV2ForSemanticSegmentation": lambda **settings: MobileViTV2Config(
        width_multiplier=0.0625,
        base_attn_unit_dims=[16] * 3,
        n_attn_blocks=[1] * 3,
        aspp_out_channels=8,
        image_size=SIZE,
        **settings,
    ),
    "Sapiens2ForSemanticSegmentation": _sapiens2,
    "SegformerForSemanticSegmentation": lambda **settings: SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **settings,
    ),
    "Tipsv2DptForSemanticSegmentation": _tipsv2,
    "UperNetForSemanticSegmentation": _upernet,
}
NAMES = [name for name in MODELS if hasattr(transformers, name)]
WITH_AUXILIARY = [name for name in NAMES if name.startswith(("Beit", "DPT", "Data2", "UperNet"))]


def build(name: str, **settings) -> nn.Module:
    """A model of that class with random weights, in training mode."""
    torch.manual_seed(0)
    config = CONFIGS[name](**{"num_labels": CLASSES, **settings})
    return getattr(transformers, name)(config).train()


def batch(size: int = SIZE, ignore_index: int = 255) -> dict:
    """Two images, and labels of which a tenth are ignored."""
    labels = torch.randint(0, CLASSES, (2, size, size))
    labels[torch.rand(labels.shape) < 0.1] = ignore_index
    return {"pixel_values": torch.randn(2, 3, SIZE, SIZE), "labels": labels}


def run(model: nn.Module, inputs: dict, dtype: torch.dtype | None = None, **settings):
    """Output of the model, and the gradients of its parameters; dropout draws the same numbers."""
    torch.manual_seed(1)
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        output = model(**inputs, **settings)
    output[0].backward()
    return output, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def errors(result, truth) -> dict[str, float]:
    """Errors of the loss and of each gradient, relative to the loss and to the largest gradient."""
    (output, gradients), (true_output, true_gradients) = result, truth
    assert gradients.keys() == true_gradients.keys()
    largest = max(gradient.abs().max() for gradient in true_gradients.values())
    of_gradients = {
        name: ((gradients[name].double() - gradient).abs().max() / largest).item()
        for name, gradient in true_gradients.items()
    }
    loss = output[0].double()
    return {"loss": ((loss - true_output[0]).abs() / true_output[0]).item(), **of_gradients}


def assert_agree(result, expected) -> None:
    """Assert that logits, loss and gradients are equal within rounding."""
    (output, gradients), (expected_output, expected_gradients) = result, expected
    assert list(output) == list(expected_output)
    torch.testing.assert_close(output.logits, expected_output.logits)
    torch.testing.assert_close(output.loss, expected_output.loss)
    assert gradients.keys() == expected_gradients.keys()
    # Rounding leaves something of gradients that are zero in theory, such as those of key biases.
    rounding = 3e-6 * max(gradient.abs().max().item() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        atol = 2e-5 * gradient.abs().max().item() + rounding
        torch.testing.assert_close(
            gradients[name], gradient, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def calls(monkeypatch) -> list:
    """Shapes of the logits of every call of the fused op."""
    shapes = []
    op = integration.upsample_cross_entropy

    def counted(logits, *args, **kwargs):
        shapes.append(list(logits.shape))
        return op(logits, *args, **kwargs)

    monkeypatch.setattr(integration, "upsample_cross_entropy", counted)
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_loss_logits_and_gradients_agree(name, calls):
    model, inputs = build(name), batch()
    expected = run(model, inputs)
    assert fuse_loss(model) is model
    assert_agree(run(model, inputs), expected)
    assert len(calls) == 1 + (name in WITH_AUXILIARY)
    unfuse_loss(model)
    output, gradients = run(model, inputs)
    assert torch.equal(output.loss, expected[0].loss)
    assert all(torch.equal(gradients[n], gradient) for n, gradient in expected[1].items())
    assert len(calls) == 1 + (name in WITH_AUXILIARY)


@pytest.mark.parametrize("ignore_index", [0, 3, -100])
@pytest.mark.parametrize("name", NAMES)
def test_any_ignore_index_and_auxiliary_weight(name, ignore_index, calls):
    settings = {MODELS[name]: ignore_index}
    if name in WITH_AUXILIARY:
        settings["auxiliary_loss_weight"] = {0: 0.0, 3: 1.7, -100: 0.4}[ignore_index]
    model, inputs = build(name, **settings), batch(ignore_index=ignore_index)
    expected = run(model, inputs)
    assert_agree(run(fuse_loss(model), inputs), expected)
    assert calls


@pytest.mark.parametrize("size", [(48, 80), (5, 9)], ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("UperNet")])
def test_labels_of_another_size_than_the_image(name, size):
    model, inputs = build(name), batch()
    inputs["labels"] = torch.randint(0, CLASSES, (2, *size))
    expected = run(model, inputs)
    assert_agree(run(fuse_loss(model), inputs), expected)


def test_upernet_refuses_labels_of_another_size():
    model, inputs = build("UperNetForSemanticSegmentation"), batch()
    inputs["labels"] = inputs["labels"][:, 1:]
    with pytest.raises(RuntimeError, match="size mismatch"):
        model(**inputs)
    with pytest.raises(ValueError, match=r"labels: \[2, 63, 64\], expected \[64, 64\]"):
        fuse_loss(model)(**inputs)
    assert run(model, batch())[0].loss.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_tuples_hidden_states_and_positional_arguments(name, calls):
    model, inputs = build(name).eval(), batch()
    position = list(inspect.signature(model.forward).parameters).index("labels")
    positional = [inputs["pixel_values"], *[None] * (position - 1), inputs["labels"]]
    with torch.no_grad():
        expected = [
            model(**inputs, return_dict=False),
            model(*positional).to_tuple(),
            model(**inputs, output_hidden_states=True).to_tuple(),
        ]
        fuse_loss(model)
        fused = [
            model(**inputs, return_dict=False),
            model(*positional).to_tuple(),
            model(**inputs, output_hidden_states=True).to_tuple(),
        ]
    assert len(calls) == 3 * (1 + (name in WITH_AUXILIARY))
    assert isinstance(fused[0], tuple)
    torch.testing.assert_close(fused, expected)


@pytest.mark.parametrize("name", NAMES)
def test_without_labels_nothing_changes(name, calls):
    model, pixel_values = build(name).eval(), batch()["pixel_values"]
    before = model(pixel_values)
    after = fuse_loss(model)(pixel_values)
    assert list(after) == list(before)
    assert after.loss is None
    assert torch.equal(after.logits, before.logits)
    assert not calls


@pytest.mark.parametrize("name", WITH_AUXILIARY)
def test_without_auxiliary_head(name, calls):
    model, inputs = build(name, use_auxiliary_head=False), batch()
    if name.startswith("DPT"):
        with pytest.raises(UnboundLocalError):  # their forward asks for the auxiliary logits
            model(**inputs)
        with_head = build(name, auxiliary_loss_weight=0.0)
        with_head.load_state_dict(model.state_dict(), strict=False)
        expected, _ = run(with_head, inputs)
        fused, _ = run(fuse_loss(model), inputs)
        torch.testing.assert_close(fused.loss, expected.loss)
    else:
        expected = run(model, inputs)
        assert_agree(run(fuse_loss(model), inputs), expected)
    assert len(calls) == 1


def test_a_new_auxiliary_head_after_fusing(calls):
    model, inputs = fuse_loss(build("UperNetForSemanticSegmentation")), batch()
    model.auxiliary_head = build("UperNetForSemanticSegmentation").auxiliary_head
    expected = run(unfuse_loss(copy.deepcopy(model)), inputs)
    assert_agree(run(model, inputs), expected)
    assert len(calls) == 2


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    model, inputs = build(name).eval(), batch()
    double = {**inputs, "pixel_values": inputs["pixel_values"].double()}
    truth = run(copy.deepcopy(model).double(), double)
    theirs = errors(run(model, inputs, torch.bfloat16), truth)
    output, gradients = run(fuse_loss(model), inputs, torch.bfloat16)
    ours = errors((output, gradients), truth)
    assert output.loss.dtype == torch.float32
    assert ours.pop("loss") <= 2 * theirs.pop("loss") + 1e-5
    assert max(ours.values()) <= 2 * max(theirs.values())


def test_models_of_other_dtypes():
    model, inputs = build("SegformerForSemanticSegmentation").double().eval(), batch()
    inputs["pixel_values"] = inputs["pixel_values"].double()
    truth = run(model, inputs)
    assert_agree(run(fuse_loss(model), inputs), truth)
    model.bfloat16()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    output, gradients = run(model, inputs)
    assert output.loss.dtype == torch.float32
    ours = errors((output, gradients), truth)
    theirs = errors(run(unfuse_loss(model), inputs), truth)
    assert ours["loss"] <= 2 * theirs["loss"]
    assert max(ours.values()) <= 2 * max(theirs.values())


# One model of each kind: logits that forward returns, also auxiliary ones, none that it returns.
@pytest.mark.parametrize("name", ["Segformer", "Data2VecVision", "UperNet"])
def test_compiled_without_graph_break(name):
    model, inputs = fuse_loss(build(f"{name}ForSemanticSegmentation").eval()), batch()
    expected = run(model, inputs)  # their first call installs hooks, which breaks the graph
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        run(compiled, inputs)
        output, gradients = run(compiled, inputs)
    gradients = {n.removeprefix("_orig_mod."): gradient for n, gradient in gradients.items()}
    assert_agree((output, gradients), expected)


@pytest.mark.parametrize("name", NAMES)
def test_one_label_stays_theirs(name, calls):
    model, inputs = build(name, num_labels=1), batch()
    inputs["labels"] = inputs["labels"].clamp(max=1)
    outcomes = []
    for fuse in (False, True):
        if fuse:
            fuse_loss(model)
        try:
            outcomes.append(run(model, inputs)[0].loss.item())
        except (ValueError, IndexError) as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert not calls


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_other_integers(dtype):
    model, inputs = fuse_loss(build("SegformerForSemanticSegmentation").eval()), batch()
    expected = run(model, inputs)
    assert_agree(run(model, {**inputs, "labels": inputs["labels"].to(dtype)}), expected)


def test_labels_that_count_nothing_or_do_not_exist():
    model, inputs = build("UperNetForSemanticSegmentation"), batch()
    inputs["labels"].fill_(255)
    assert model(**inputs).loss.isnan()
    output, gradients = run(fuse_loss(model), inputs)
    assert output.loss == 0
    assert not any(gradient.any() for gradient in gradients.values())
    inputs["labels"][1, 2, 3] = CLASSES
    with pytest.raises(ValueError, match=rf"labels: {CLASSES} at \[1, 2, 3\]"):
        model(**inputs)


def test_copies_and_pickles_are_fused(calls):
    for name in ("BeitForSemanticSegmentation", "SegformerForSemanticSegmentation"):
        model, inputs = fuse_loss(build(name).eval()), batch()
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        expected = model(**inputs).loss
        for other in copies:
            calls.clear()
            assert torch.equal(other(**inputs).loss, expected)
            assert calls
            unfuse_loss(other)
            calls.clear()
            torch.testing.assert_close(other(**inputs).loss, expected)
            assert not calls
        model(**inputs)
        assert calls


def test_saved_as_theirs(tmp_path, calls):
    name = "UperNetForSemanticSegmentation"
    model, inputs = build(name).eval(), batch()
    theirs, signature = type(model), inspect.signature(model.forward)
    fuse_loss(model)
    assert (type(model).__name__, type(model).__module__) == (name, theirs.__module__)
    assert inspect.signature(model.forward) == signature
    assert isinstance(model, theirs)
    model.save_pretrained(tmp_path)
    expected = model(**inputs).loss
    loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert type(loaded) is theirs
    assert loaded.config.architectures == [name]
    calls.clear()
    torch.testing.assert_close(loaded(**inputs).loss, expected)
    assert not calls
    torch.testing.assert_close(
        type(model).from_pretrained(tmp_path).eval()(**inputs).loss, expected
    )
    assert calls


def test_twice_is_once():
    model, inputs = build("DPTForSemanticSegmentation").eval(), batch()
    theirs, attributes = type(model), set(vars(model.auxiliary_head))
    fuse_loss(model)
    fused = type(model)
    assert type(fuse_loss(model)) is fused is not theirs
    model(**inputs)
    for _ in range(2):
        assert type(unfuse_loss(model)) is theirs
        assert set(vars(model.auxiliary_head)) == attributes


def _own_forward(model: nn.Module) -> nn.Module:
    class Mine(type(model)):
        def forward(self, pixel_values, labels=None):
            return super().forward(pixel_values, labels)

    return Mine(model.config)


def _own_loss_function(model: nn.Module) -> nn.Module:
    model.loss_function = nn.functional.cross_entropy
    return model


def _patched_forward(model: nn.Module) -> nn.Module:
    model.forward = model.forward
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: nn.Linear(1, 1), "Linear is not one of Beit"),
        (lambda model: model.beit, "BeitModel is not one of Beit"),
        (lambda model: nn.Sequential(model), "Sequential is not one of Beit.* fuse that before"),
        (_own_forward, "this Mine has its own forward"),
        (_own_loss_function, "has its own loss_function"),
        (_patched_forward, "has its own forward"),
    ],
)
def test_models_that_are_refused(change, message):
    model = change(build("BeitForSemanticSegmentation"))
    cls = type(model)
    with pytest.raises(TypeError, match=message):
        fuse_loss(model)
    assert type(model) is cls


def test_a_subclass_with_the_same_loss(calls):
    class Mine(transformers.SegformerForSemanticSegmentation):
        def predict(self, pixel_values):
            return self(pixel_values).logits.argmax(1)

    model, inputs = Mine(build("SegformerForSemanticSegmentation").config), batch()
    expected = run(model, inputs)
    assert_agree(run(fuse_loss(model), inputs), expected)
    assert calls
    assert model.predict(inputs["pixel_values"]).dtype == torch.int64


def test_a_loss_function_that_is_set_later_counts(calls):
    model = fuse_loss(build("BeitForSemanticSegmentation"))
    model.loss_function = lambda logits, labels, **settings: logits.sum() * 0 + 42
    assert model(**batch()).loss == 42
    assert not calls


def test_a_forward_that_was_replaced_later_is_not_undone():
    model = _patched_forward(fuse_loss(build("BeitForSemanticSegmentation")))
    with pytest.raises(TypeError, match="was replaced after fuse_loss"):
        unfuse_loss(model)


def test_distributed_data_parallel(tmp_path, calls):
    model, inputs = build("UperNetForSemanticSegmentation").eval(), batch()
    expected = run(model, inputs)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(fuse_loss(model))
        output, gradients = run(wrapped, inputs)
        assert len(calls) == 2
        unfuse_loss(wrapped)
    finally:
        torch.distributed.destroy_process_group()
    gradients = {n.removeprefix("module."): gradient for n, gradient in gradients.items()}
    assert_agree((output, gradients), expected)
    model(**inputs)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "name", ["SegformerForSemanticSegmentation", "UperNetForSemanticSegmentation"]
)
def test_twenty_updates_have_the_same_losses(name):
    losses = {}
    for fuse in (False, True):
        model = build(name)
        if fuse:
            fuse_loss(model)
        # Not Adam: it scales up gradients that are zero but for rounding, as those of biases
        # before a batch norm, and so the rounding itself.
        optimiser = torch.optim.SGD(model.parameters(), lr=0.015, momentum=0.9)
        torch.manual_seed(2)
        inputs = batch()
        inputs["labels"] = (inputs["pixel_values"].mean(1) * 9).long().clamp(0, CLASSES - 1)
        losses[fuse] = []
        for _ in range(20):
            loss = model(**inputs).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[fuse].append(loss.item())
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert losses[True][-1] < 0.9 * losses[True][0]


class Images(torch.utils.data.Dataset):
    """Eight random images with labels, and a column that the model does not take."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        torch.manual_seed(index)
        item = {name: value[0] for name, value in batch().items()}
        return {**item, "file": f"{index}.png"}


def test_trainer(tmp_path, calls):
    pytest.importorskip("accelerate", reason="Trainer needs accelerate")
    losses = {}
    for fuse in (False, True):
        model = build("SegformerForSemanticSegmentation")
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            fuse_loss(model) if fuse else model,
            arguments,
            train_dataset=Images(),
            eval_dataset=Images(),
        )
        trainer.train()
        history = [*trainer.state.log_history, trainer.evaluate()]
        losses[fuse] = [entry[k] for entry in history for k in ("loss", "eval_loss") if k in entry]
    assert len(losses[True]) == 4
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert len(calls) == 7  # two batches for each of three updates, and one of all for evaluation
