import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meta_ood import models
from meta_ood.inference.features import CLIPPED, DISTANCES, SHAPINGS, FeatureSums, Tap, distances, k_centres
from meta_ood.inference.stored_scores import Scorer

CLASSES, WIDTH = 4, 10


class Net(nn.Module):
    """Positive features of an image and a linear layer at each pixel."""

    align_corners = False
    output_stride = 1

    def __init__(self, after: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.Softplus())
        self.unused = nn.Conv2d(WIDTH, 2, 1)
        self.last = nn.Conv2d(WIDTH, CLASSES, 1)
        self.mixed = after

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        return self.last(x + image[:, :1]) if self.mixed else self.last(x)


def fitted(net: Net, rng: np.random.Generator) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    """Return the statistics of some frames, and all their labelled pixels at once: features and labels."""
    tap = Tap(net)
    sums = FeatureSums(CLASSES, 3)
    rows, labels, largest = [], [], []
    for _ in range(3):
        image = torch.from_numpy(rng.standard_normal((1, 3, 9, 11)).astype(np.float32))
        label = rng.choice([0, 1, 2, 3, 255], (9, 11))
        (logits,) = tap(image)
        sums.add(tap.features[0], torch.from_numpy(label))
        rows.append(tap.features[0].flatten(1).T.double().numpy()[label.ravel() < CLASSES])
        labels.append(label[label < CLASSES])
        largest.append(logits.amax(1)[0].numpy()[label < CLASSES])
    mean = torch.tensor(np.concatenate(largest).mean(), dtype=torch.float64)
    return sums.result(tap, mean), np.concatenate(rows), np.concatenate(labels)


@torch.inference_mode()
def test_feature_scores_are_those_of_direct_statements() -> None:
    """In NumPy and float64, from all pixels at once; 50 random networks, training sets and images."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        net = Net().eval()
        statistics, x, y = fitted(net, rng)
        names = (*DISTANCES, *SHAPINGS)
        image = torch.from_numpy(2 * rng.standard_normal((1, 3, 4, 5)).astype(np.float32))
        logits, maps = Scorer(net, names, statistics).eval().split(Scorer(net, names, statistics)(image), (4, 5))
        torch.testing.assert_close(logits, net(image))
        f = net.first(image)[0].flatten(1).T.double().numpy()
        weight, bias = net.last.weight.detach()[:, :, 0, 0].double().numpy(), net.last.bias.detach().double().numpy()

        def energy(features: np.ndarray, weight=weight, bias=bias) -> np.ndarray:
            return -np.log(np.exp(features @ weight.T + bias).sum(1))

        means = np.stack([x[y == c].mean(0) for c in range(CLASSES)])
        ridge = 1e-6 * np.eye(WIDTH)
        within = sum((x[y == c] - means[c]).T @ (x[y == c] - means[c]) for c in range(CLASSES)) / len(x)
        total = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
        near = np.linalg.inv(within + np.trace(within) / WIDTH * ridge)
        far = np.linalg.inv(total + np.trace(total) / WIDTH * ridge)
        distance = np.min([np.einsum("ni,ij,nj->n", f - m, near, f - m) for m in means], axis=0)
        unit, points = f / np.linalg.norm(f, axis=1, keepdims=True), x / np.linalg.norm(x, axis=1, keepdims=True)
        origin = -np.linalg.pinv(weight) @ bias
        _, vectors = np.linalg.eigh((x - origin).T @ (x - origin) / len(x))
        residual = vectors[:, : WIDTH - WIDTH // 2]
        largest = (x @ weight.T + bias).max(1).mean()
        alpha = largest / np.linalg.norm((x - origin) @ residual, axis=1).mean()
        left = WIDTH - round(0.65 * WIDTH)
        kept = np.where(f >= np.sort(f, axis=1)[:, -left][:, None], f, 0)
        factor = np.exp(np.minimum(f.sum(1) / np.maximum(kept.sum(1), 1e-12), 10))[:, None]
        expected = {
            "mahalanobis": distance,
            "relative_mahalanobis": distance - np.einsum("ni,ij,nj->n", f - x.mean(0), far, f - x.mean(0)),
            "knn": np.linalg.norm(unit[:, None] - points[None], axis=2).min(1),
            "prototype_cosine": -(unit @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).max(1),
            "vim": alpha * np.linalg.norm((f - origin) @ residual, axis=1) + energy(f),
            "react": energy(np.minimum(f, np.quantile(x, CLIPPED))),
            "ash": energy(kept * factor),
            "scale": energy(f * factor),
        }
        assert set(expected) == set(names)
        for name, values in expected.items():
            # relative to the largest value; the relative distance is a difference of distances
            largest_value = max(1, np.abs(distance if name == "relative_mahalanobis" else values).max())
            np.testing.assert_allclose(maps[name].flatten(), values, rtol=1e-5, atol=1e-5 * largest_value, err_msg=name)


def test_feature_scores_are_those_of_pytorch_ood() -> None:
    ood = pytest.importorskip("pytorch_ood.detector")
    for seed in range(50):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        net = Net().eval()
        with torch.inference_mode():
            statistics, x, y = fitted(net, rng)
            z, labels = torch.from_numpy(x), torch.from_numpy(y)
            f = net.first(torch.from_numpy(2 * rng.standard_normal((1, 3, 4, 5)).astype(np.float32)))[0].flatten(1).T
            scores = {name: DISTANCES[name](f, statistics) for name in DISTANCES}

            def head(maps: Tensor, net: Net = net) -> Tensor:
                return net.last(maps)[:, :, 0, 0]

            maps = f[:, :, None, None]
            scores |= {n: -head(SHAPINGS[n](f, statistics)[:, :, None, None]).logsumexp(1) for n in SHAPINGS}
            scores["vim"] -= head(maps).logsumexp(1)
            vim = ood.ViM(None, WIDTH // 2, net.last.weight[:, :, 0, 0], net.last.bias).fit_features(z.float(), labels)
            expected = {
                "knn": ood.KNN(None, k=1).fit_features(z, labels).predict_features(f.double()),
                "vim": vim.predict_features(f),
                "react": ood.ReAct(None, head, threshold=float(np.quantile(x, CLIPPED))).predict_feature_maps(maps),
                "ash": ood.ASH(None, head, "ash-s").predict_feature_maps(maps),
                "scale": ood.SCALE(None, head).predict_feature_maps(maps),
            }
        for name, values in expected.items():
            # its ViM is fitted in float32
            scale = max(1.0, float(values.abs().max())) * (10 if name == "vim" else 1)
            found, values = scores[name].double(), values.double()
            torch.testing.assert_close(found, values, rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}")
        # those two sum scatter where ours are means, and add an absolute ridge
        pooled = ood.RMD(None)
        pooled.to("cpu")
        pooled.fit_features(z.float(), labels)
        pairs = {"mahalanobis": pooled._calc_gaussian_scores(f).amin(1)}
        pairs["relative_mahalanobis"] = pooled.predict_features(f)
        for name, values in pairs.items():
            found, values = scores[name].double(), values.double() * len(x)
            torch.testing.assert_close(found, values, rtol=1e-3, atol=1e-3 * float(values.abs().max()))


@torch.inference_mode()
def test_distances_are_computed_in_float32_whatever_the_network_s_precision() -> None:
    torch.manual_seed(0)
    statistics, _, _ = fitted(Net().eval(), np.random.default_rng(0))
    features = torch.rand(2, WIDTH, 3, 4).bfloat16()
    expected = distances(list(DISTANCES), features.float(), statistics)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(distances(list(DISTANCES), features, statistics), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["erfnet", "espnetv2", "deeplabv3plus_mini", "dualgcn_mini"])
def test_by_default_features_go_into_the_layer_of_the_logits(name: str) -> None:
    net = models.build(name, 19).eval()
    tap = Tap(net)
    with torch.inference_mode():
        (logits,) = tap(torch.rand(1, 3, 64, 128))
        assert tap.last is not None
        torch.testing.assert_close(tap.last(tap.features), logits)


def test_a_tap_by_name() -> None:
    net = models.build("erfnet", 19, features="decoder.layers.3").eval()
    tap = Tap(net)
    with torch.inference_mode():
        tap(torch.rand(2, 3, 64, 128))
    assert tap.features.shape == (2, 16, 32, 64)
    message = r"options.features: no module 'decoder.layer.3'; known: decoder.layers, decoder.output_conv; did you mean"
    with pytest.raises(ValueError, match=message):
        models.build("erfnet", 19, features="decoder.layer.3")
    with pytest.raises(ValueError, match=r"no module 'layers.3'; known: decoder.layers.3, encoder.layers.3"):
        models.build("erfnet", 19, features="layers.3")


def test_features_that_cannot_be_changed_alone() -> None:
    net = Net(after=True).eval()
    net.features = "first"
    tap = Tap(net)
    tap.shapings = [torch.relu]
    with pytest.raises(ValueError, match="do not let changed features through alone"):
        tap(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"infer.scores: knn, vim: statistics of training frames are missing"):
        Scorer(Net(), ["knn", "vim"])


def test_a_coreset_covers_what_it_is_chosen_from() -> None:
    points = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 3)))
    chosen = k_centres(points, 20)
    assert len(torch.unique(chosen, dim=0)) == 20
    # a k-centre choice has at most twice the best radius: no point is farther than two chosen ones from each other
    radius = torch.cdist(points, chosen).amin(1).max()
    assert radius <= torch.cdist(chosen, chosen)[~torch.eye(20, dtype=torch.bool)].min() + 1e-9
    assert len(k_centres(points[:5], 20)) == 5
