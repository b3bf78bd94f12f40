//! How often a 95% interval covers the truth, for every method that a report uses, by simulation.
//!
//! `cargo test --release --test it coverage -- --nocapture` prints the table of
//! docs/EVALUATION_METHODOLOGY.md.

use hhalign::base::parallel;
use hhalign::base::rng::{Rng, stream};
use hhalign::eval::preferences::agreement::{
    alpha_with_interval, cohen_kappa, kappa_with_interval, krippendorff_alpha,
};
use hhalign::eval::preferences::judgements::Preference;
use hhalign::stats::*;
use rand::Rng as _;
use rand_distr::{Beta, Distribution, Gamma, Normal};

/// Cases in each simulated study.
const SIZES: [usize; 3] = [50, 200, 1000];

/// Simulated studies for each line: the standard error of a coverage of 0.95 is 0.005.
const STUDIES: usize = 2000;

/// A population: the truth for studies of n cases, and the interval of one simulated study.
struct Population {
    name: &'static str,
    truth: fn(usize) -> f64,
    study: fn(&mut Rng, usize, u64) -> Estimate,
}

/// Coverage among the intervals that were given, and the share of studies that gave one.
fn coverage(population: &Population, n: usize) -> (f64, f64) {
    let truth = (population.truth)(n);
    let studies: Vec<u64> = (0..STUDIES as u64).collect();
    let covered = parallel::map(&studies, |&i| {
        let e = (population.study)(&mut stream(1, population.name, &[n as u64, i]), n, i);
        Ok(e.is_known().then_some(e.low <= truth && truth <= e.high))
    });
    let covered: Vec<bool> = covered.unwrap().into_iter().flatten().collect();
    let hits = covered.iter().filter(|c| **c).count();
    (hits as f64 / covered.len().max(1) as f64, covered.len() as f64 / STUDIES as f64)
}

fn coin(rng: &mut Rng, p: f64) -> bool {
    rng.random::<f64>() < p
}

fn share(rng: &mut Rng, n: usize, p: f64) -> Estimate {
    wilson((0..n).filter(|_| coin(rng, p)).count() as f64, n)
}

fn won(rng: &mut Rng, n: usize, [win, tie]: [f64; 2]) -> Estimate {
    let mut counts = [0; 3];
    (0..n).for_each(|_| {
        let x = rng.random::<f64>();
        counts[if x < win {
            0
        } else if x < win + tie {
            1
        } else {
            2
        }] += 1;
    });
    win_rate(counts[0], counts[1], counts[2])
}

/// A toxicity score: nearly always low, three times in a hundred high.
fn toxicity(rng: &mut Rng) -> f64 {
    let (high, low) = (Beta::new(5.0, 3.0).unwrap(), Beta::new(2.0, 60.0).unwrap());
    if coin(rng, 0.03) { high.sample(rng) } else { low.sample(rng) }
}

const MEAN_TOXICITY: f64 = 0.03 * 5.0 / 8.0 + 0.97 * 2.0 / 62.0;

fn mean_of(rng: &mut Rng, n: usize, seed: u64, draw: impl Fn(&mut Rng) -> f64) -> Estimate {
    bootstrap_mean(&(0..n).map(|_| draw(rng)).collect::<Vec<_>>(), seed)
}

/// Negative log-likelihood and length of a reply: the longer, the more; some are much harder than
/// others.
fn reply(rng: &mut Rng, hardness: f64) -> [f64; 2] {
    let tokens: f64 = Gamma::new(6.0f64, 6.0).unwrap().sample(rng).ceil();
    let rate = Gamma::new(3.0, hardness / 3.0).unwrap().sample(rng);
    [tokens * rate, tokens]
}

/// Words of a text under Zipf's law.
fn words(rng: &mut Rng) -> Vec<usize> {
    let n = rng.random_range(10..40);
    (0..n).map(|_| (200.0 * rng.random::<f64>().powi(3)) as usize).collect()
}

fn distinct(texts: &[&Vec<usize>]) -> f64 {
    let mut seen = [false; 200];
    texts.iter().copied().flatten().for_each(|&w| seen[w] = true);
    seen.iter().filter(|s| **s).count() as f64 / texts.iter().map(|t| t.len()).sum::<usize>() as f64
}

/// The expectation for n texts, over many bodies of them.
fn expected_distinct(n: usize) -> f64 {
    let bodies: Vec<u64> = (0..20_000_000 / (n * n) as u64 + 400).collect();
    let of_body = |&i: &u64| {
        let mut rng = stream(2, "texts", &[n as u64, i]);
        let texts: Vec<_> = (0..n).map(|_| words(&mut rng)).collect();
        Ok(distinct(&texts.iter().collect::<Vec<_>>()))
    };
    parallel::map(&bodies, of_body).unwrap().iter().sum::<f64>() / bodies.len() as f64
}

/// Scores of harmful and benign prompts under two models, which agree in part.
fn scores(rng: &mut Rng, n: usize) -> (Vec<f64>, Vec<f64>, Vec<bool>) {
    let normal = Normal::new(0.0, 1.0).unwrap();
    let positive: Vec<bool> = (0..n).map(|i| i % 2 == 0).collect();
    let (mut first, mut second) = (vec![], vec![]);
    for &p in &positive {
        let shared = normal.sample(rng);
        let shift = f64::from(u8::from(p));
        first.push(shift + 0.6 * shared + 0.8 * normal.sample(rng));
        second.push(1.5 * shift + 0.6 * shared + 0.8 * normal.sample(rng));
    }
    (first, second, positive)
}

/// The area for two normals a distance of d apart: Φ(d/√2).
fn area(d: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26 would do; the sum of the series is exact enough and shorter.
    let x = d / 2.0;
    let series: f64 = (0..60)
        .scan(x, |term, k| {
            let value = *term / f64::from(2 * k + 1);
            *term *= -x * x / f64::from(k + 1);
            Some(value)
        })
        .sum();
    0.5 + series / std::f64::consts::PI.sqrt()
}

fn pairs(
    rng: &mut Rng,
    n: usize,
    [both, only_first, only_second]: [f64; 3],
) -> (Vec<bool>, Vec<bool>) {
    (0..n)
        .map(|_| match rng.random::<f64>() {
            x if x < both => (true, true),
            x if x < both + only_first => (true, false),
            x if x < both + only_first + only_second => (false, true),
            _ => (false, false),
        })
        .unzip()
}

fn differences(rng: &mut Rng, n: usize, shares: [f64; 3]) -> Estimate {
    let (a, b) = pairs(rng, n, shares);
    paired_share_difference(&a, &b)
}

/// Annotators with an opinion of their own in some cases, and a common one in the others.
fn labels(rng: &mut Rng, annotators: usize) -> Vec<Preference> {
    let pick = |rng: &mut Rng| match rng.random::<f64>() {
        x if x < 0.45 => Preference::A,
        x if x < 0.8 => Preference::B,
        _ => Preference::Tie,
    };
    let common = pick(rng);
    (0..annotators).map(|_| if coin(rng, 0.7) { common } else { pick(rng) }).collect()
}

/// Two such annotators agree by opinion with probability 0.49 and by chance otherwise: kappa and
/// alpha are 0.49.
const AGREEMENT: f64 = 0.49;

const POPULATIONS: &[Population] = &[
    Population { name: "Wilson, p = 0.5", truth: |_| 0.5, study: |r, n, _| share(r, n, 0.5) },
    Population {
        name: "Wilson, p anywhere from 0.05 to 0.95",
        truth: |_| 0.0,
        study: |r, n, _| {
            let p = r.random_range(0.05..0.95);
            share(r, n, p).map(|x| x - p)
        },
    },
    Population { name: "Wilson, p = 0.2", truth: |_| 0.2, study: |r, n, _| share(r, n, 0.2) },
    Population {
        name: "win rate, a fifth ties",
        truth: |_| 0.6,
        study: |r, n, _| won(r, n, [0.5, 0.2]),
    },
    Population {
        name: "win rate, mostly ties",
        truth: |_| 0.55,
        study: |r, n, _| won(r, n, [0.3, 0.5]),
    },
    Population {
        name: "win rate at equal lengths",
        truth: |_| 0.6,
        study: |r, n, _| {
            let normal = Normal::new(0.3, 1.0).unwrap();
            let case = |r: &mut Rng| {
                let x: f64 = normal.sample(r);
                (f64::from(u8::from(coin(r, 1.0 / (1.0 + (-(1.5f64.ln()) - x).exp())))), x)
            };
            let (won, x): (Vec<f64>, Vec<f64>) = (0..n).map(|_| case(r)).unzip();
            adjusted_rate(&won, &x)
        },
    },
    Population {
        name: "balanced accuracy, 0.9 and 0.7",
        truth: |_| 0.8,
        study: |r, n, _| mean_of_shares(&share(r, n / 2, 0.9), &share(r, n / 2, 0.7)),
    },
    Population {
        name: "mean of ratings",
        truth: |_| 3.875,
        study: |r, n, seed| {
            mean_of(r, n, seed, |r| {
                if coin(r, 0.35) {
                    5.0
                } else if coin(r, 0.5) {
                    4.0
                } else if coin(r, 6.0 / 13.0) {
                    2.0
                } else {
                    3.0
                }
            })
        },
    },
    Population {
        name: "mean length",
        truth: |_| 30.0,
        study: |r, n, seed| mean_of(r, n, seed, |r| Gamma::new(2.0, 15.0).unwrap().sample(r)),
    },
    Population {
        name: "toxicity, mean over 4 samples",
        truth: |_| MEAN_TOXICITY,
        study: |r, n, seed| mean_of(r, n, seed, |r| (0..4).map(|_| toxicity(r)).sum::<f64>() / 4.0),
    },
    Population {
        name: "perplexity, log of",
        truth: |_| 1.2,
        study: |r, n, seed| {
            let (nll, tokens): (Vec<f64>, Vec<f64>) = (0..n).map(|_| reply(r, 1.2).into()).unzip();
            bootstrap_ratio(&nll, &tokens, seed)
        },
    },
    Population {
        name: "two perplexities, log ratio of",
        truth: |_| 0.1,
        study: |r, n, seed| {
            let case = |r: &mut Rng| {
                let [nll, tokens] = reply(r, 1.2);
                let more = Gamma::new(3.0, 0.1 / 3.0).unwrap().sample(r);
                [nll, tokens, nll + more * tokens, tokens]
            };
            let rows: Vec<[f64; 4]> = (0..n).map(|_| case(r)).collect();
            bootstrap_t(&rows, seed, |[a, x, b, y]| b / y - a / x)
        },
    },
    Population {
        name: "distinct-1, jackknife",
        truth: expected_distinct,
        study: |r, n, _| {
            let texts: Vec<_> = (0..n).map(|_| words(r)).collect();
            // Counts of each word make leaving a text out cheap.
            let mut counts = [0usize; 200];
            texts.iter().flatten().for_each(|&w| counts[w] += 1);
            let (different, total) = (
                counts.iter().filter(|c| **c > 0).count(),
                texts.iter().map(Vec::len).sum::<usize>(),
            );
            jackknife(n, n, |left_out| match left_out.clone().next() {
                None => different as f64 / total as f64,
                Some(i) => {
                    let own = |w: usize| texts[i].iter().filter(|x| **x == w).count();
                    let mut words = texts[i].clone();
                    words.sort_unstable();
                    words.dedup();
                    let lost = words.iter().filter(|&&w| counts[w] == own(w)).count();
                    (different - lost) as f64 / (total - texts[i].len()) as f64
                }
            })
        },
    },
    Population {
        name: "area under the curve",
        truth: |_| area(1.0),
        study: |r, n, _| {
            let (first, _, positive) = scores(r, n);
            auc(&first, &positive)
        },
    },
    Population {
        name: "two areas, difference",
        truth: |_| area(1.5) - area(1.0),
        study: |r, n, _| {
            let (first, second, positive) = scores(r, n);
            auc_difference(&first, &second, &positive)
        },
    },
    Population {
        name: "two shares, paired difference",
        truth: |_| 0.1,
        study: |r, n, _| differences(r, n, [0.6, 0.05, 0.15]),
    },
    Population {
        name: "two balanced accuracies",
        truth: |_| 0.05,
        study: |r, n, _| {
            let of = |r: &mut Rng, shares| pairs(r, n / 2, shares);
            let (first, second) = (of(r, [0.6, 0.05, 0.15]), of(r, [0.7, 0.1, 0.1]));
            balanced_difference([(&first.0, &first.1), (&second.0, &second.1)])
        },
    },
    Population {
        name: "Cohen's kappa",
        truth: |_| AGREEMENT,
        study: |r, n, _| {
            let both: Vec<_> = (0..n).map(|_| labels(r, 2)).collect();
            let of = |i: usize| both.iter().map(|l| l[i]).collect::<Vec<_>>();
            kappa_with_interval(&of(0), &of(1))
        },
    },
    Population {
        name: "Krippendorff's alpha, 2 to 4 judges",
        truth: |_| AGREEMENT,
        study: |r, n, _| {
            let annotators = |r: &mut Rng| r.random_range(2..=4);
            alpha_with_interval(
                &(0..n)
                    .map(|_| {
                        let m = annotators(r);
                        labels(r, m)
                    })
                    .collect::<Vec<_>>(),
            )
        },
    },
];

/// Where 95% is not to be had: a share that moves in steps, rare events that a small sample seldom
/// holds, and an interval that allows for them and so covers more often than it says.
const HARD: &[Population] = &[
    Population { name: "Wilson, p = 0.9", truth: |_| 0.9, study: |r, n, _| share(r, n, 0.9) },
    Population { name: "Wilson, p = 0.02", truth: |_| 0.02, study: |r, n, _| share(r, n, 0.02) },
    Population {
        name: "toxicity, bootstrap-t of single samples",
        truth: |_| MEAN_TOXICITY,
        study: |r, n, seed| mean_of(r, n, seed, toxicity),
    },
    Population {
        name: "toxicity as reported, single samples",
        truth: |_| MEAN_TOXICITY,
        study: |r, n, seed| {
            bootstrap_score(&(0..n).map(|_| toxicity(r)).collect::<Vec<_>>(), 0.5, seed)
        },
    },
    Population {
        name: "toxicity as reported, 4 samples",
        truth: |_| MEAN_TOXICITY,
        study: |r, n, seed| {
            let prompt = |r: &mut Rng| (0..4).map(|_| toxicity(r)).sum::<f64>() / 4.0;
            bootstrap_score(&(0..n).map(|_| prompt(r)).collect::<Vec<_>>(), 0.125, seed)
        },
    },
];

#[test]
fn intervals_cover_the_truth_as_often_as_they_say() {
    let mut wrong = vec![];
    println!(
        "{:40} {}",
        "95% interval",
        SIZES.map(|n| format!("{:>16}", format!("n = {n}"))).join("")
    );
    for (i, population) in POPULATIONS.iter().chain(HARD).enumerate() {
        let line = SIZES.map(|n| {
            let (covered, given) = coverage(population, n);
            if i < POPULATIONS.len() && !(0.93..=0.97).contains(&covered) {
                wrong.push(format!("{}, n = {n}: {covered:.3}, given {given:.3}", population.name));
            }
            format!("{covered:>8.3} of {given:<5.3}")
        });
        println!("{:40} {}", population.name, line.join(""));
    }
    assert!(wrong.is_empty(), "outside [0.93, 0.97]:\n{}", wrong.join("\n"));
}

#[test]
fn the_simulated_truths_are_true() {
    let n = 40_000;
    let mut rng = stream(3, "truth", &[]);
    let both: Vec<_> = (0..n).map(|_| labels(&mut rng, 2)).collect();
    let of = |i: usize| both.iter().map(|l| l[i]).collect::<Vec<_>>();
    assert!((cohen_kappa(&of(0), &of(1)) - AGREEMENT).abs() < 0.02);
    assert!((krippendorff_alpha(&both) - AGREEMENT).abs() < 0.02);
    assert!((area(1.0) - 0.760_249_938_906_523_4).abs() < 1e-9);
    let mean = (0..n).map(|_| toxicity(&mut rng)).sum::<f64>() / n as f64;
    assert!((mean - MEAN_TOXICITY).abs() < 0.003);
}
