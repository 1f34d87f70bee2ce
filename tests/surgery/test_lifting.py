"""A classifier and its dense form: equal at the training size, and on every window of the feature map."""

import copy
import operator
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullyconv.errors import ConfigError, GeometryError, SurgeryError
from fullyconv.surgery import DenseClassifier, compare_with_windows, convolutionalize, rules
from fullyconv.surgery.rules import RULES
from fullyconv.surgery.tracing import trace

SIZE = 19


def randomised(module: nn.Module) -> nn.Module:
    """Statistics and norms as after training, so that leaving one out shows."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, 0, 0.2)
        elif isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight, 1, 0.2)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.double().eval()


def unpadded() -> nn.Sequential:
    """A trunk without zero padding: 19×19 -> 8×8×8, stride 2."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 2))


class Net(nn.Module):
    """A trunk and a head given as a function of its layers."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.trunk = unpadded()
        self.head = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor):
        return self.head(self, self.trunk(x))


def sum_of(*values: Tensor) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def vector_head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(unpadded(), *layers)


HEADS = {
    "flatten": lambda: vector_head(nn.Flatten(), nn.Linear(512, 5)),
    "flatten, two layers": lambda: vector_head(
        nn.Flatten(), nn.Dropout(), nn.Linear(512, 9), nn.ReLU(), nn.Linear(9, 5)
    ),
    "global average": lambda: vector_head(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    "global maximum": lambda: vector_head(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    "average to 4x4": lambda: vector_head(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)),
    "average to 2x8": lambda: vector_head(nn.AdaptiveAvgPool2d((2, 8)), nn.Flatten(), nn.Linear(128, 5)),
    "average to 7x7": lambda: vector_head(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(392, 5)),
    "average to 3x3, irregular": lambda: vector_head(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 5)),
    "maximum to 5x3, irregular": lambda: vector_head(
        nn.AdaptiveMaxPool2d((5, 3)), nn.Flatten(), nn.ReLU(), nn.Linear(120, 5)
    ),
    "average to 11x11, larger": lambda: vector_head(
        nn.AdaptiveAvgPool2d(11), nn.Flatten(), nn.Linear(968, 5)
    ),
    "irregular, then 1x1": lambda: vector_head(
        nn.AdaptiveAvgPool2d(3),
        nn.Conv2d(8, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 5),
    ),
    "pooled, then a kernel": lambda: vector_head(
        nn.AdaptiveAvgPool2d(4), nn.Conv2d(8, 4, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    ),
    "pooled, then a pool": lambda: vector_head(
        nn.AdaptiveMaxPool2d(4), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5)
    ),
    "pooled, with a rest": lambda: vector_head(
        nn.AdaptiveMaxPool2d(4), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(8, 5)
    ),
    "pooled, with a rest of a pool": lambda: vector_head(
        nn.AdaptiveAvgPool2d((8, 2)), nn.MaxPool2d((3, 2), (3, 1)), nn.Flatten(), nn.Linear(16, 5)
    ),
    "fixed global pool": lambda: vector_head(nn.AvgPool2d(8), nn.Conv2d(8, 5, 1), nn.Flatten()),
    "conv head": lambda: vector_head(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "conv scores": lambda: vector_head(nn.Conv2d(8, 5, 8)),
    "norms of vectors": lambda: vector_head(
        nn.Flatten(),
        nn.BatchNorm1d(512),
        nn.Linear(512, 6),
        nn.LayerNorm(6),
        nn.GELU(),
        nn.Linear(6, 5),
        nn.Softmax(1),
    ),
    "unknown vector layer": lambda: vector_head(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.GroupNorm(2, 8), nn.Linear(8, 5)
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(unpadded()),
        nn.Sequential(nn.Sequential(nn.Flatten()), nn.Sequential(nn.Linear(512, 5))),
    ),
    "mean": lambda: Net(lambda s, x: s.fc(x.mean((2, 3))), fc=nn.Linear(8, 5)),
    "mean of tokens": lambda: Net(lambda s, x: s.fc(x.flatten(2).mean(-1)), fc=nn.Linear(8, 5)),
    "mean, one axis each": lambda: Net(lambda s, x: s.fc(x.mean(3).mean(2)), fc=nn.Linear(8, 5)),
    "channels last": lambda: Net(
        lambda s, x: s.fc(s.norm(x.permute(0, 2, 3, 1)).mean((1, 2))),
        norm=nn.LayerNorm(8),
        fc=nn.Linear(8, 5),
    ),
    "channels last, flattened": lambda: Net(
        lambda s, x: s.fc(x.permute(0, 2, 3, 1).flatten(1)), fc=nn.Linear(512, 5)
    ),
    "functions": lambda: Net(
        lambda s, x: F.log_softmax(
            F.linear(F.relu(F.adaptive_avg_pool2d(x, 1)).view(x.size(0), -1), s.w, s.b), dim=-1
        ),
        w=nn.Parameter(torch.randn(5, 8)),
        b=nn.Parameter(torch.randn(5)),
    ),
    "cosine": lambda: Net(
        lambda s, x: F.linear(F.normalize(x.mean((2, 3)), dim=1), F.normalize(s.w)),
        w=nn.Parameter(torch.randn(5, 8)),
    ),
    "average and maximum": lambda: Net(
        lambda s, x: s.fc(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)), fc=nn.Linear(16, 5)
    ),
    "sum and scale": lambda: Net(
        lambda s, x: s.fc(0.5 * x.sum((2, 3), keepdim=True)[:, :, 0, 0] * s.w + s.w),
        w=nn.Parameter(torch.randn(8)),
        fc=nn.Linear(8, 5),
    ),
    "vector gate": lambda: Net(
        lambda s, x: s.fc((v := x.mean((2, 3))) * torch.sigmoid(s.gate(v))),
        gate=nn.Linear(8, 8),
        fc=nn.Linear(8, 5),
    ),
    "two scales": lambda: Net(
        lambda s, x: s.fc(torch.cat([x.mean((2, 3)), s.deep(x).mean((2, 3))], 1)),
        deep=nn.Conv2d(8, 4, 2, stride=2),
        fc=nn.Linear(12, 5),
    ),
    "two linears share a name": lambda: Net(
        lambda s, x: s.fc(F.relu(s.fc(x.mean((2, 3))))), fc=nn.Linear(8, 8)
    ),
    "part of the channels": lambda: Net(lambda s, x: s.fc(x.mean((2, 3))[:, 2:6]), fc=nn.Linear(4, 5)),
    "scores of two branches": lambda: Net(
        lambda s, x: s.a(x.flatten(1)) + s.b(x.amax(dim=(-2, -1))), a=nn.Linear(512, 5), b=nn.Linear(8, 5)
    ),
    "flattened branches side by side": lambda: Net(
        lambda s, x: s.fc(torch.cat([x.flatten(1), F.max_pool2d(x, 2).flatten(1)], dim=-1)),
        fc=nn.Linear(640, 5),
    ),
    "a norm of unit length": lambda: Net(
        lambda s, x: s.fc((v := x.mean((2, 3))) / v.pow(2).sum(1, keepdim=True).sqrt()), fc=nn.Linear(8, 5)
    ),
    "channels last, linear first": lambda: Net(
        lambda s, x: s.b(s.a(x.permute(0, 2, 3, 1)).mean([1, 2])), a=nn.Linear(8, 6), b=nn.Linear(6, 5)
    ),
    "shapes by functions": lambda: Net(
        lambda s, x: s.fc(
            torch.reshape(
                torch.unsqueeze(torch.squeeze(torch.mean(x, (2, 3), keepdim=True), 3), -1).reshape(-1, 8, 1),
                (-1, 8),
            ).unsqueeze(1)
        ).squeeze(1),
        fc=nn.Linear(8, 5),
    ),
    "orders by functions": lambda: Net(
        lambda s, x: s.fc(
            torch.flatten(torch.transpose(torch.permute(x, (0, 2, 3, 1)), 1, 2).transpose(1, 2), 1, 2).mean(1)
        ),
        fc=nn.Linear(8, 5),
    ),
    "pools by functions": lambda: Net(
        lambda s, x: s.fc(
            torch.concat([F.avg_pool2d(x, 8).flatten(1), F.adaptive_max_pool2d(x, 2).flatten(1)], 1)
        ),
        fc=nn.Linear(40, 5),
    ),
    "sums by functions": lambda: Net(
        lambda s, x: s.fc(torch.sum(x, (2, 3)) + torch.amax(x, (2, 3))),
        fc=nn.Linear(8, 5),
    ),
    "norms by functions": lambda: Net(
        lambda s, x: s.fc(
            F.rms_norm(F.layer_norm(F.batch_norm(x.mean((2, 3)), s.mean, s.var), (8,), s.w), (8,))
        ),
        w=nn.Parameter(torch.randn(8)),
        mean=nn.Parameter(torch.randn(8), requires_grad=False),
        var=nn.Parameter(torch.rand(8) + 1, requires_grad=False),
        fc=nn.Linear(8, 5),
    ),
    "softmax by functions": lambda: Net(
        lambda s, x: sum_of(
            (v := s.fc(x.mean((2, 3)))).softmax(1),
            v.log_softmax(-1),
            torch.softmax(v, 1),
            torch.log_softmax(v, -1),
            F.softmax(v, dim=1),
            s.log(v),
        ),
        fc=nn.Linear(8, 5),
        log=nn.LogSoftmax(-1),
    ),
    "root mean square": lambda: vector_head(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.RMSNorm(8), nn.Linear(8, 5)
    ),
    "one score": lambda: Net(lambda s, x: s.fc(x.mean((2, 3))).squeeze(1), fc=nn.Linear(8, 1)),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_dense_equals_the_classifier_on_every_crop_of_an_unpadded_trunk(make) -> None:
    torch.manual_seed(0)
    check_crops(randomised(make()))


@torch.no_grad()
def check_crops(classifier: nn.Module) -> DenseClassifier:
    """The definition: dense = the classifier, slid."""
    dense = convolutionalize(classifier, SIZE)
    image = torch.randn(2, 3, 33, 26, dtype=torch.double)
    scores = dense(image)
    down, right = dense.stride
    for i in range(scores.shape[2]):
        for j in range(scores.shape[3]):
            crop = image[:, :, i * down : i * down + SIZE, j * right : j * right + SIZE]
            torch.testing.assert_close(
                scores[:, :, i, j], classifier(crop).reshape(2, -1), rtol=0, atol=1e-12
            )
    assert dense(image[..., :SIZE, :SIZE]).shape == (2, scores.shape[1], 1, 1)
    assert scores.shape[2:] == ((8, 4) if down == 2 else (4, 2))
    return dense


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_weights_are_shared_names_survive_and_state_goes_both_ways(make) -> None:
    classifier = randomised(make())
    dense = convolutionalize(classifier, SIZE)
    assert set(dense.state_dict()) == set(classifier.state_dict())
    memory = {parameter.data_ptr() for parameter in classifier.parameters()}
    copied = {name for name, parameter in dense.named_parameters() if parameter.data_ptr() not in memory}
    # The kernel of a layer that reads rows, columns, channels in this order has another order in memory.
    assert copied == ({"fc.weight"} if make is HEADS["channels last, flattened"] else set())
    other = randomised(make())
    image = torch.randn(1, 3, SIZE, SIZE, dtype=torch.double)
    if not copied:
        dense.load_state_dict(copy.deepcopy(other.state_dict()))
        torch.testing.assert_close(dense(image).flatten(), other(image).flatten())


def flat(count: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(count, 5)]


def kinds(*rules) -> list:
    return [key for key, rule in RULES.items() if rule in rules and key != "output"]


def applied(key, v: Tensor):
    """Apply what a key of the table stands for to a vector."""
    more = {
        **dict.fromkeys((torch.pow, operator.pow, "pow"), (2,)),
        **dict.fromkeys((torch.clamp, "clamp"), (-0.2, 0.3)),
        "to": (torch.double,),
        "type": (torch.double,),
        "type_as": (torch.zeros((), dtype=torch.double),),
        torch.dropout: (0.5, False),
    }.get(key, ())
    if key in (torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, "log", "sqrt", "rsqrt", "reciprocal"):
        v = v.abs() + 1
    result = operator.methodcaller(key, *more)(v) if isinstance(key, str) else key(v, *more)
    return result.double() if key in ("float", "half", "bfloat16") else result


def _called(key):
    """Name an operation the same in every process: its ``str`` may hold an address."""
    return key if isinstance(key, str) else f"{getattr(key, '__module__', None)}.{key.__name__}"


@pytest.mark.parametrize("key", kinds(rules.pointwise), ids=_called)
def test_every_pointwise_operation(key) -> None:
    torch.manual_seed(1)
    if isinstance(key, type):
        layer = key(0.1, 0.2) if key is nn.Threshold else key()
        check_crops(randomised(Net(lambda s, x: s.fc(s.own(x).amax((2, 3))), own=layer, fc=nn.Linear(8, 5))))
        check_crops(randomised(nn.Sequential(unpadded(), nn.AdaptiveMaxPool2d(3), layer, *flat(72))))
    elif key in (F.dropout, F.dropout2d, F.alpha_dropout):
        check_crops(
            randomised(Net(lambda s, x: s.fc(key(x, training=s.training).flatten(1)), fc=nn.Linear(512, 5)))
        )
    else:
        check_crops(randomised(Net(lambda s, x: s.fc(applied(key, x.mean((2, 3)))), fc=nn.Linear(8, 5))))


@pytest.mark.parametrize("key", kinds(rules.combine), ids=_called)
def test_every_arithmetic_operation_with_a_number_a_constant_and_another_value(key) -> None:
    torch.manual_seed(2)

    def function(first: Tensor, second):
        return operator.methodcaller(key, second)(first) if isinstance(key, str) else key(first, second)

    def head(net: Net, x: Tensor) -> Tensor:
        v = x.amax((2, 3), keepdim=True)
        if key not in (torch.maximum, torch.minimum):
            v = function(v.clone(), 1.5)
        v = function(v.flatten(1), net.w.exp())
        return net.fc(function(v, x.mean((2, 3)).square() + 1))

    check_crops(randomised(Net(head, w=nn.Parameter(torch.randn(1, 8)), fc=nn.Linear(8, 5))))


def test_every_rule_of_the_table_is_swept() -> None:
    swept = {*kinds(rules.pointwise), *kinds(rules.combine), "output"}
    for make in HEADS.values():
        traced = trace(make(), training=False)
        for node in traced.graph.nodes:
            layer = traced.attribute(node.target) if node.op == "call_module" else None
            swept.add(type(layer) if layer else node.target)
    missing = set(RULES) - swept
    assert not missing


def test_outputs_keep_their_structure() -> None:
    def head(net: Net, x: Tensor):
        v = x.mean((2, 3))
        return {"main": net.a(v), "others": (net.b(x.flatten(1)), [net.a(v).softmax(-1)]), "stride": 4}

    classifier = randomised(Net(head, a=nn.Linear(8, 5), b=nn.Linear(512, 3)))
    scores = convolutionalize(classifier, SIZE)(torch.randn(1, 3, 23, 21, dtype=torch.double))
    assert scores["main"].shape == (1, 5, 3, 2)
    assert scores["others"][0].shape == (1, 3, 3, 2)
    assert scores["others"][1][0].shape == (1, 5, 3, 2)
    assert scores["stride"] == 4


class Auxiliary(nn.Module):
    """A second head in train mode only, and dropout as a function: the forward pass differs by mode."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = unpadded()
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(8, 2, 1), nn.Flatten(), nn.Linear(18, 5))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor):
        x = self.trunk(x)
        scores = self.fc(F.dropout(x.mean((2, 3)), 0.5, self.training))
        return TwoScores(scores, self.aux(x)) if self.training else scores


class TwoScores(NamedTuple):
    main: Tensor
    extra: Tensor


def test_train_and_eval_mode_are_those_of_the_classifier() -> None:
    classifier = randomised(Auxiliary())
    classifier.trunk[1].train()  # a mode of its own
    dense = convolutionalize(classifier, SIZE)
    image = torch.randn(2, 3, 25, SIZE, dtype=torch.double)
    assert not dense.training
    assert classifier.trunk[1].training
    assert dense.get_submodule("trunk.1").training
    classifier.eval()
    assert not dense.get_submodule("trunk.1").training  # it is the same layer
    assert isinstance(dense(image), Tensor)
    dense.train()
    main, extra = dense(image)
    assert main.shape == extra.shape == (2, 5, 4, 1)
    assert not torch.equal(dense(image).main, main)  # dropout
    assert set(dense.state_dict()) == set(classifier.state_dict())
    torch.testing.assert_close(dense.eval()(image), dense(image), rtol=0, atol=0)
    assert convolutionalize(Auxiliary(), SIZE).training  # a new module is in train mode


def test_a_gradient_step_on_the_dense_network_trains_the_classifier() -> None:
    classifier = randomised(HEADS["flatten, two layers"]())
    dense = convolutionalize(classifier, SIZE).train()
    image = torch.randn(2, 3, 25, 23, dtype=torch.double)
    before = classifier(image[..., :SIZE, :SIZE])
    optimizer = torch.optim.SGD(dense.parameters(), 0.1)
    F.cross_entropy(dense(image), torch.ones(2, 4, 3, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in dense.parameters())
    optimizer.step()
    after = classifier.eval()(image[..., :SIZE, :SIZE])
    assert not torch.allclose(before, after)
    torch.testing.assert_close(dense.eval()(image[..., :SIZE, :SIZE])[..., 0, 0], after)


def test_copies_and_files_give_the_same_scores(tmp_path) -> None:
    classifier = randomised(HEADS["irregular, then 1x1"]())
    dense = convolutionalize(classifier, SIZE)
    image = torch.randn(1, 3, 22, 30, dtype=torch.double)
    expected = dense(image)
    twin = copy.deepcopy(dense)
    torch.save(dense, tmp_path / "dense.pt")
    loaded = torch.load(tmp_path / "dense.pt", weights_only=False)
    with torch.no_grad():
        next(dense.parameters()).zero_()
    for other in (twin, loaded):
        assert isinstance(other, DenseClassifier)
        assert other.stride == dense.stride
        torch.testing.assert_close(other(image), expected, rtol=0, atol=0)
        assert other.train().training


def test_compiled_and_exported_networks_give_the_same_scores_at_other_sizes() -> None:
    dense = convolutionalize(randomised(HEADS["flatten, two layers"]()), SIZE)
    image, larger = (torch.randn(1, 3, *size, dtype=torch.double) for size in ((22, 30), (40, 26)))
    compiled = torch.compile(dense, backend="eager", fullgraph=True, dynamic=True)
    sizes = {
        2: torch.export.Dim("height", min=SIZE + 2, max=512),
        3: torch.export.Dim("width", min=SIZE + 2, max=512),
    }
    exported = torch.export.export(dense, (image,), dynamic_shapes=(sizes,), strict=False).module()
    for x in (image, larger):
        torch.testing.assert_close(compiled(x), dense(x))
        torch.testing.assert_close(exported(x), dense(x))


@pytest.mark.parametrize("shape", [(1, 4, 19, 19), (3, 19, 19), (1, 19, 19, 3)])
def test_images_of_other_channels_are_an_error_that_says_what_is_expected(shape) -> None:
    dense = convolutionalize(nn.Sequential(unpadded(), nn.AdaptiveMaxPool2d(1), *flat(8)), SIZE)
    with pytest.raises(GeometryError, match=rf"{'×'.join(map(str, shape))}; expected N×3×H×W"):
        dense(torch.zeros(shape))


def test_an_image_smaller_than_the_training_size_is_an_error_or_is_padded() -> None:
    classifier = randomised(HEADS["global average"]())
    image = torch.randn(1, 3, 16, 25, dtype=torch.double)
    with pytest.raises(GeometryError, match=r"16×25.*19×19.*pad=True"):
        convolutionalize(classifier, SIZE)(image)
    padded = convolutionalize(classifier, SIZE, pad=True)(image)
    expected = convolutionalize(classifier, SIZE)(F.pad(image, (0, 0, 1, 2)))
    torch.testing.assert_close(padded, expected)


def test_input_size_can_be_oblong_and_must_be_positive() -> None:
    trunk = unpadded()
    classifier = (
        nn.Sequential(trunk, nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten(), nn.Linear(64, 5)).double().eval()
    )
    dense = convolutionalize(classifier, (19, 35))
    image = torch.randn(1, 3, 21, 39, dtype=torch.double)
    assert dense(image).shape == (1, 5, 2, 3)
    torch.testing.assert_close(dense(image)[..., 1, 2], classifier(image[..., 2:, 4:]))
    for wrong in (0, (19, -1), (19, 19, 19), (19.5, 19)):
        with pytest.raises(ConfigError, match="input_size"):
            convolutionalize(classifier, wrong)


@pytest.mark.parametrize(
    "make", [HEADS["flatten"], HEADS["average to 3x3, irregular"]], ids=["flatten", "3x3"]
)
def test_stride_cells_and_receptive_field_are_what_gradients_show(make) -> None:
    dense = convolutionalize(randomised(make()), SIZE)
    image = torch.randn(1, 3, 40, 41, dtype=torch.double, requires_grad=True)
    scores = dense(image)
    assert dense.cells((40, 41)) == scores.shape[2:]
    (first,) = torch.autograd.grad(scores[..., 2, 3].square().sum(), image, retain_graph=True)
    rows, columns = (first[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
    assert dense.receptive_field == (len(rows), len(columns)) == (SIZE, SIZE)
    assert (int(rows[0]), int(columns[0])) == (2 * dense.stride[0], 3 * dense.stride[1])


def test_class_names_are_given_or_those_of_imagenet_where_a_library_made_the_classifier() -> None:
    classifier = randomised(HEADS["flatten"]())
    assert convolutionalize(classifier, SIZE).class_names is None
    assert convolutionalize(classifier, SIZE, class_names=list("abcde")).class_names == tuple("abcde")
    names = convolutionalize(torchvision.models.squeezenet1_1(weights=None), 64).class_names
    assert names is not None
    assert names[281] == "tabby"
    assert (
        convolutionalize(torchvision.models.squeezenet1_1(weights=None, num_classes=3), 64).class_names
        is None
    )


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class SizedGate(Gate):
    """Its code branches on a size, so that it stays whole."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[2] > 1 else x


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Gate(3), ("0",)),
        (SizedGate(3), ("0",)),
        (nn.GroupNorm(1, 3), ("0",)),
        (nn.InstanceNorm2d(3), ("0",)),
        (nn.Sequential(nn.Identity(), Gate(3)), ("0.1",)),
        (nn.BatchNorm2d(3), ()),
        (nn.LocalResponseNorm(3), ()),
    ],
)
def test_layers_that_see_the_whole_image_are_named(layer, expected) -> None:
    classifier = nn.Sequential(
        layer, nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    dense = convolutionalize(classifier.eval(), 8)
    assert dense.global_context == expected
    assert (dense.receptive_field is None) == bool(expected)


class OnSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.shape[-1] % 2 else F.gelu(x)


def test_a_layer_that_branches_on_sizes_stays_whole() -> None:
    classifier = nn.Sequential(OnSize(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    dense = convolutionalize(classifier, 8)
    for size in (9, 10):
        image = torch.randn(1, 3, size, size)
        acted = OnSize()(image)
        expected = convolutionalize(classifier[1:], 8)(acted)
        torch.testing.assert_close(dense(image), expected)


class NoisyPath(nn.Module):
    """Stochastic depth as timm writes it: the random numbers are changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        keep = x.new_full((x.shape[0], 1, 1, 1), 3.0)
        keep.div_(2)
        return x * keep


def test_changes_in_place_are_kept() -> None:
    classifier = nn.Sequential(NoisyPath(), nn.Conv2d(3, 5, 4), nn.Flatten()).eval()
    image = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(convolutionalize(classifier, 4)(image).flatten(1), classifier(image))


class Tokens(nn.Module):
    """A trunk, then something on tokens N×(H·W)×C."""

    def __init__(self, mix: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, stride=4), mix, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class SelfAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x


class BackToMap(nn.Module):
    """Mixes positions, and gives a map again."""

    def forward(self, x: Tensor) -> Tensor:
        samples, channels, height, width = x.shape
        tokens = x.flatten(2)
        return (tokens @ (tokens.transpose(1, 2) @ tokens).softmax(-1)).view(samples, channels, height, width)


class PositionBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Branches(nn.Module):
    """Runs other layers for bright images."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Scales(nn.Module):
    """Divides by the brightest value, as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.max().item()


class Folds(nn.Module):
    """Cuts the map into windows that become samples, as window attention does."""

    def forward(self, x: Tensor) -> Tensor:
        samples, channels, height, width = x.shape
        x = x.reshape(samples, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(-1, channels, 2, 2) - 1
        x = x.reshape(samples, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(samples, channels, height, width)


def ended(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


CONV = nn.Conv2d(3, 8, 3)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (Tokens(SelfAttention(), nn.Linear(8, 5)), "`mix` .SelfAttention. mixes all positions"),
        (Tokens(nn.TransformerEncoderLayer(8, 2), nn.Linear(8, 5)), "`mix` .TransformerEncoderLayer. mixes"),
        (Tokens(nn.Conv1d(16, 16, 1), nn.Linear(8, 5)), "layer `mix` has no sliding form"),
        (Tokens(PositionBias(), nn.Linear(8, 5)), "layer `mix` acts on the positions inside the window"),
        (Tokens(nn.Sequential(), nn.LSTM(8, 5)), "`head` .LSTM. mixes"),
        (ended(CONV, BackToMap()), "layer `1` mixes all positions"),
        (ended(CONV, Folds()), "layer `1` mixes all positions"),
        (ended(CONV, Branches()), "layer `1` decides by the values of the image"),
        (ended(CONV, Scales()), "`item` in layer `1` takes a number out of the values of the image"),
        (nn.Sequential(CONV, nn.Flatten(2), nn.Linear(196, 5)), "`2` connects positions with each other"),
        (nn.Sequential(CONV, nn.Flatten(), nn.Linear(500, 5)), "layer `2` fails on images of 3×16×16"),
        (nn.Sequential(CONV, nn.Conv2d(8, 5, 3)), "gives an output of .* that is no vector of scores"),
        (ended(CONV, nn.AdaptiveAvgPool2d(4), nn.Conv2d(8, 8, 3, padding=1)), "`2` pads"),
        (nn.Sequential(CONV, nn.Flatten(), nn.Softmax(0)), "layer `2` normalises over the batch"),
        (nn.Sequential(CONV, nn.AdaptiveAvgPool2d(1), nn.Flatten(0)), "is no vector of scores per sample"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "no nn.Conv2d"),
        (Branches(), "no nn.Conv2d"),
    ],
)  # fmt: skip
def test_what_has_no_dense_form_is_refused_by_the_name_of_the_layer(classifier, message) -> None:
    with pytest.raises(SurgeryError, match=message):
        convolutionalize(classifier.eval(), 16)


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[-1]):
            x = self.conv(x)
        return x.mean((2, 3))


def test_only_networks_are_lifted() -> None:
    with pytest.raises(ConfigError, match=r"a classifier of type str; expected an nn\.Module"):
        convolutionalize("resnet18", 8)  # type: ignore[arg-type]  # wrong on purpose


def test_a_forward_pass_that_cannot_be_traced_says_what_to_do() -> None:
    with pytest.raises(SurgeryError, match=r"forward pass of Loop cannot be traced.*submodule"):
        convolutionalize(Loop(), 8)


def test_the_classifier_is_left_as_it_was() -> None:
    classifier = randomised(Auxiliary()).train()
    classifier.fc.eval()
    before, attributes = copy.deepcopy(classifier.state_dict()), set(vars(classifier))
    convolutionalize(classifier, SIZE)
    assert set(vars(classifier)) == attributes
    assert isinstance(classifier.fc, nn.Linear)
    assert classifier.training
    assert not classifier.fc.training
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@st.composite
def classifiers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, int], bool]:
    """A random classifier, its training size, and whether no layer pads."""
    channels, size, padded = 3, (draw(st.integers(14, 24)), draw(st.integers(14, 24))), False
    layers: list[nn.Module] = []
    extent = size
    for _ in range(draw(st.integers(1, 4))):
        groups = draw(st.sampled_from([1, channels]))
        width = groups * draw(st.integers(1, 2))
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        stride, padding = draw(st.integers(1, 2)), draw(st.sampled_from([0, 0, 1]))
        pools = [nn.MaxPool2d, nn.AvgPool2d]
        layer = draw(
            st.sampled_from(
                [
                    nn.Conv2d(channels, width, kernel, stride, padding, dilation, groups),
                    draw(st.sampled_from(pools))(min(kernel, 3), stride, min(padding, min(kernel, 3) // 2)),
                    nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
                ]
            )
        )
        with torch.no_grad():
            reach = layer(torch.zeros(1, channels, *extent)).shape if _fits(layer, extent) else None
        if reach is None:
            continue
        channels, extent = reach[1], (reach[2], reach[3])
        padded |= getattr(layer, "padding", 0) not in (0, (0, 0))
        layers.append(layer)
    if not any(isinstance(layer, nn.Conv2d) for layer in layers):
        layers.insert(0, nn.Conv2d(3, 3, 1))
    k = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    count = channels * extent[0] * extent[1]
    head = draw(
        st.sampled_from(
            [
                [nn.Flatten(), nn.Linear(count, 4)],
                [nn.Flatten(), nn.BatchNorm1d(count), nn.Linear(count, 6), nn.ReLU(), nn.Linear(6, 4)],
                [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4), nn.Softmax(-1)],
                [nn.AdaptiveMaxPool2d(k), nn.Flatten(), nn.Linear(channels * k[0] * k[1], 4)],
                [nn.AdaptiveAvgPool2d(k), nn.Flatten(), nn.Dropout(), nn.Linear(channels * k[0] * k[1], 4)],
                [nn.Conv2d(channels, 4, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()],
            ]
        )
    )
    return nn.Sequential(nn.Sequential(*layers), *head), size, not padded


def _fits(layer: nn.Module, extent: tuple[int, int]) -> bool:
    if isinstance(layer, nn.Sequential):
        return True
    kernel, dilation = layer.kernel_size, getattr(layer, "dilation", 1)
    kernel, dilation = (v if isinstance(v, int) else v[0] for v in (kernel, dilation))
    return (kernel - 1) * dilation + 1 <= min(extent)


@settings(max_examples=40, deadline=None)
@given(classifiers(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**20))
def test_random_classifiers_hold_the_laws(drawn, more_rows, more_columns, seed) -> None:
    classifier, size, unpadded_trunk = drawn
    torch.manual_seed(seed)
    randomised(classifier)
    dense = convolutionalize(classifier, size)
    image = torch.randn(1, 3, size[0] + more_rows, size[1] + more_columns, dtype=torch.double)
    with torch.no_grad():
        small = image[..., : size[0], : size[1]]
        torch.testing.assert_close(dense(small).flatten(1), classifier(small), rtol=0, atol=1e-9)
    report = compare_with_windows(dense, classifier, image, repeats=0)
    assert report.head_difference.max() < 1e-9
    assert np.isfinite(report.crop_difference).any()
    assert bool(report.padded_layers) != unpadded_trunk
    if unpadded_trunk:
        assert np.nanmax(report.crop_difference) < 1e-9
    other = convolutionalize(copy.deepcopy(classifier), size)
    other.load_state_dict(dense.state_dict())
    torch.testing.assert_close(other(image), dense(image), rtol=0, atol=0)
