"""Computes statistics by scipy, statsmodels, scikit-learn, krippendorff and NLTK, for the tests.

    python scripts/golden/make_statistics.py hhalign-lib/tests/golden/statistics.json

Made with Python 3.11, scipy==1.17.1, statsmodels==0.15.0, scikit-learn==1.9.1, krippendorff==0.9.0,
nltk==3.10.4. None of them has DeLong's variance, Bonett and Price's interval or the studentised
bootstrap: these are computed here from their formulas, in another way than in the library.
"""

import json
import math
import sys

import krippendorff
import numpy as np
from nltk.metrics.agreement import AnnotationTask
from scipy import stats
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

rng = np.random.default_rng(20)


def studentised(rows, g, draws=100_000):
    """Bootstrap-t with the jackknife's standard error in place of the delta method's."""
    rows = np.asarray(rows, float)
    n = len(rows)

    def error(sums, own):
        # own: (..., n, K) the cases of each resample
        without = g((sums[..., None, :] - own) / (n - 1))
        mean = without.mean(-1, keepdims=True)
        return np.sqrt((n - 1) / n * ((without - mean) ** 2).sum(-1))

    value, se = g(rows.mean(0)), error(rows.sum(0), rows)
    t = []
    for _ in range(draws // 2000):
        drawn = rows[rng.integers(0, n, (2000, n))]
        sums = drawn.sum(1)
        t.append((g(sums / n) - value) / error(sums, drawn))
    low, high = np.quantile(np.concatenate(t), [0.025, 0.975])
    return {"value": float(value), "low": float(value - high * se), "high": float(value - low * se)}


def delong(scores, other, positive):
    """DeLong's area and variance over every pair of a positive and a negative case."""

    def kernel(x):
        x = np.asarray(x)
        a, b = x[positive], x[~positive]
        return (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])

    k = kernel(scores) if other is None else kernel(other) - kernel(scores)
    m, n = k.shape
    return float(k.mean()), float(np.var(k.mean(1), ddof=1) / m + np.var(k.mean(0), ddof=1) / n)


def adjusted(won, x, ridge=0.125):
    """The penalised likelihood by a general optimiser, the sandwich estimator by numpy."""
    won, x = np.asarray(won), np.asarray(x)
    design = np.stack([np.ones_like(x), x], 1)

    def loss(w):
        logits = design @ w
        return float(np.sum(np.logaddexp(0, logits) - won * logits) + ridge * w[1] ** 2 / 2)

    w = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-10}).x
    p = 1 / (1 + np.exp(-design @ w))
    hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag([0, ridge])
    middle = (design * ((won - p) ** 2)[:, None]).T @ design
    inverse = np.linalg.inv(hessian)
    se = math.sqrt((inverse @ middle @ inverse)[0, 0] * len(x) / (len(x) - 2))
    z, expit = stats.norm.ppf(0.975), lambda v: 1 / (1 + math.exp(-v))
    return {"value": expit(w[0]), "low": expit(w[0] - z * se), "high": expit(w[0] + z * se)}


def main(path):
    golden = {}
    golden["wilson"] = [
        {"k": k, "n": n, "interval": proportion_confint(k, n, method="wilson")}
        for k, n in [(7, 50), (0, 20), (20, 20), (37, 50), (46, 50), (1, 1000), (497, 1000)]
    ]
    golden["binomial"] = [
        {"k": k, "n": n, "p": stats.binomtest(k, n).pvalue}
        for k, n in [(0, 5), (9, 10), (40, 61), (1200, 2300), (0, 1)]
    ]
    outcomes = rng.random((120, 2)) < [0.6, 0.75]
    table = [
        [int(np.sum((outcomes[:, 0] == i) & (outcomes[:, 1] == j))) for j in (1, 0)] for i in (1, 0)
    ]
    b, c, n = table[0][1] + 1, table[1][0] + 1, len(outcomes) + 2
    half = stats.norm.ppf(0.975) * math.sqrt((b + c - (c - b) ** 2 / n) / n / n)
    golden["paired"] = {
        "first": outcomes[:, 0].tolist(),
        "second": outcomes[:, 1].tolist(),
        "mcnemar_p": mcnemar(table, exact=True).pvalue,
        "low": (c - b) / n - half,
        "high": (c - b) / n + half,
    }
    p = [0.001, 0.2, 0.03, 0.04, 0.0004, 0.04, 0.9]
    golden["holm"] = {"p": p, "corrected": multipletests(p, method="holm")[1].tolist()}
    pairs = [(0.74, 0.92), (0.5, 0.55), (0.04, 0.01)]
    golden["power"] = [
        {
            "first": a,
            "second": b,
            "h": proportion_effectsize(b, a),
            "n": math.ceil(
                NormalIndPower().solve_power(
                    abs(proportion_effectsize(b, a)), power=0.8, alpha=0.05
                )
            ),
        }
        for a, b in pairs
    ]

    labels = rng.integers(0, 3, (60, 3))
    common = rng.random((60, 3)) < 0.6
    labels = np.where(common, labels[:, :1], labels)
    cells = np.zeros((3, 3), int)
    np.add.at(cells, (labels[:, 0], labels[:, 1]), 1)
    gaps = np.where(rng.random((60, 3)) < 0.2, np.nan, labels)
    task = AnnotationTask([(str(j), str(i), str(labels[i, j])) for i in range(60) for j in (0, 1)])
    kappa = float(cohens_kappa(cells, return_results=False))
    assert abs(kappa - task.kappa()) < 1e-12
    golden["agreement"] = {
        "labels": labels.tolist(),
        "gaps": [[None if math.isnan(v) else int(v) for v in row] for row in gaps],
        "kappa": kappa,
        "alpha": krippendorff.alpha(gaps.T, level_of_measurement="nominal"),
    }

    positive = rng.random(80) < 0.5
    first = np.round(rng.normal(size=80) + positive, 1)
    second = np.round(first * 0.5 + rng.normal(size=80) + 1.5 * positive, 1)
    area, variance = delong(first, None, positive)
    assert abs(area - roc_auc_score(positive, first)) < 1e-12
    assert (
        abs(
            area
            - stats.mannwhitneyu(first[positive], first[~positive]).statistic
            / np.sum(positive)
            / np.sum(~positive)
        )
        < 1e-12
    )
    apart, of_difference = delong(first, second, positive)
    golden["auc"] = {
        "positive": positive.tolist(),
        "first": first.tolist(),
        "second": second.tolist(),
        "area": area,
        "variance": variance,
        "difference": apart,
        "variance_of_difference": of_difference,
    }

    x = np.round(rng.gamma(2.0, 3.0, 60), 3)
    y = np.round(1 + rng.gamma(3.0, 4.0, 60), 3)
    bca = stats.bootstrap(
        (x,), np.mean, method="BCa", n_resamples=100_000, rng=rng
    ).confidence_interval
    golden["bootstrap"] = {
        "x": x.tolist(),
        "y": y.tolist(),
        "mean": studentised(x[:, None], lambda m: m[..., 0]),
        "ratio": studentised(np.stack([x, y], 1), lambda m: m[..., 0] / m[..., 1]),
        "mean_bca": [bca.low, bca.high],
    }
    gain = np.round(rng.normal(0.25, 1.0, 60), 3)
    permuted = stats.permutation_test(
        (gain, np.zeros(60)),
        lambda a, b: np.mean(a) - np.mean(b),
        permutation_type="samples",
        n_resamples=1_000_000,
        batch=10_000,
        rng=rng,
    )
    golden["permutation"] = {"gain": gain.tolist(), "p": permuted.pvalue}

    lengths = np.round(rng.normal(0.4, 1.0, 90), 3)
    won = np.where(
        rng.random(90) < 0.15, 0.5, (rng.random(90) < 1 / (1 + np.exp(-0.3 - lengths))) * 1.0
    )
    golden["adjusted"] = {"won": won.tolist(), "x": lengths.tolist(), **adjusted(won, lengths)}
    with open(path, "w") as file:
        json.dump(golden, file)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
