//! Studies of a world whose truth is known: how often an interval holds it, and what many tests find where there is nothing.

use std::collections::BTreeMap;

use rand::Rng as _;

use crate::error::{Error, Result};
use crate::eval::comparison::figure;
use crate::parallel;
use crate::plot::{Figure, Panel};
use crate::rng::stream;
use crate::sample::Reply;
use crate::stats::{Estimate, bootstrap_mean, bootstrap_score, permutation_test, wilson};
use crate::table::{Column, Table};

/// How the 95% interval of a mean is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interval {
    /// Mean ± 1.96 standard errors, as it stands in most textbooks.
    Textbook,
    /// [`wilson`], for cases that are 0 or 1.
    Wilson,
    /// [`bootstrap_mean`].
    BootstrapT,
    /// [`bootstrap_score`], for scores in [0, 1] of which those above this number are rare.
    Score(f64),
}

impl Interval {
    /// As it stands in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Textbook => "mean ± 1.96 standard errors",
            Self::Wilson => "Wilson",
            Self::BootstrapT => "bootstrap-t",
            Self::Score(_) => "bootstrap-t, and what may be missed",
        }
    }

    /// Mean and interval of some cases; `None` where there are too few.
    fn of(self, cases: &[f64], seed: u64) -> Option<[f64; 3]> {
        let known = |e: Estimate| e.is_known().then_some([e.value, e.low, e.high]);
        match self {
            Self::Textbook => {
                let n = cases.len() as f64;
                let mean = cases.iter().sum::<f64>() / n;
                let variance = cases.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0);
                let half = 1.96 * (variance / n).sqrt();
                Some([mean, mean - half, mean + half])
            }
            Self::Wilson => known(wilson(cases.iter().sum(), cases.len())),
            Self::BootstrapT => known(bootstrap_mean(cases, seed)),
            Self::Score(high) => known(bootstrap_score(cases, high, seed)),
        }
    }
}

/// A world that is known: all the cases there are.
#[derive(Debug, Clone)]
pub struct Urn {
    /// What stands in tables for it.
    pub name: String,
    cases: Vec<f64>,
}

impl Urn {
    /// Balls with 1 and balls with 0 on them.
    ///
    /// # Errors
    /// No ball.
    ///
    /// # Example
    /// ```
    /// assert_eq!(hhalign::lesson::studies::Urn::balls(68, 32)?.truth(), 0.68);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn balls(ones: usize, zeros: usize) -> Result<Self> {
        Self::new(&format!("{ones} of {}", ones + zeros), [vec![1.0; ones], vec![0.0; zeros]].concat())
    }

    /// Any numbers, under a name.
    ///
    /// # Errors
    /// No number, or one that is not finite.
    pub fn new(name: &str, cases: Vec<f64>) -> Result<Self> {
        if cases.is_empty() || cases.iter().any(|c| !c.is_finite()) {
            let got = format!("{} values", cases.len());
            return Err(Error::new("an urn needs numbers", got, "give one finite number for each case"));
        }
        Ok(Self { name: name.into(), cases })
    }

    /// The mean of all that is in it.
    pub fn truth(&self) -> f64 {
        self.cases.iter().sum::<f64>() / self.cases.len() as f64
    }

    /// Lets `count` studies draw `n` cases each, with replacement, and make an interval of them.
    ///
    /// # Errors
    /// Fewer than two cases, no study, or Wilson's interval for cases that are not 0 or 1.
    ///
    /// # Example
    /// ```
    /// use hhalign::lesson::studies::{Interval, Urn};
    /// let studies = Urn::balls(68, 32)?.studies(50, 400, Interval::Wilson, 0)?;
    /// assert_eq!((studies.truth, studies.found.len()), (0.68, 400));
    /// assert!(studies.covered().low < 0.95 && studies.covered().high > 0.95);
    /// # Ok::<(), hhalign::error::Error>(())
    /// ```
    pub fn studies(&self, n: usize, count: usize, interval: Interval, seed: u64) -> Result<Studies> {
        if n < 2 || count == 0 {
            let got = format!("{count} studies of {n} cases");
            return Err(Error::new("there must be a study, of two cases at least", got, "such as 200 studies of 50"));
        }
        if interval == Interval::Wilson && self.cases.iter().any(|c| *c != 0.0 && *c != 1.0) {
            let fix = "take Interval::BootstrapT";
            return Err(Error::new("Wilson's interval is for 0 and 1", format!("other numbers in {}", self.name), fix));
        }
        let seeds: Vec<u64> = (0..count as u64).collect();
        let found = parallel::map(&seeds, |&i| {
            let mut rng = stream(seed, "study", &[n as u64, i]);
            let drawn: Vec<f64> = (0..n).map(|_| self.cases[rng.random_range(0..self.cases.len())]).collect();
            Ok(interval.of(&drawn, i))
        })?;
        Ok(Studies { of: self.name.clone(), truth: self.truth(), n, interval, found })
    }
}

/// Many studies that asked the same question of the same world, each with cases of its own.
#[derive(Debug, Clone)]
pub struct Studies {
    /// The urn's name.
    pub of: String,
    /// The mean of the urn.
    pub truth: f64,
    /// Cases in each study.
    pub n: usize,
    /// How their intervals were made.
    pub interval: Interval,
    /// Mean, lower and upper end of each study; `None` where it gave no interval.
    pub found: Vec<Option<[f64; 3]>>,
}

impl Studies {
    fn given(&self) -> impl Iterator<Item = [f64; 3]> + '_ {
        self.found.iter().copied().flatten()
    }

    fn share(&self, holds: impl Fn([f64; 3]) -> bool) -> Estimate {
        wilson(self.given().filter(|e| holds(*e)).count() as f64, self.given().count())
    }

    /// The share of intervals that hold the truth, among those that were given.
    pub fn covered(&self) -> Estimate {
        self.share(|[_, low, high]| low <= self.truth && self.truth <= high)
    }

    /// The share of intervals that lie above a level as a whole: studies that could tell the truth from it.
    pub fn above(&self, level: f64) -> Estimate {
        self.share(|[_, low, _]| low > level)
    }

    /// One row for each of several.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(several: &[Self]) -> Result<Table> {
        let text = |f: &dyn Fn(&Self) -> String| several.iter().map(f).collect::<Vec<_>>();
        let count = |f: &dyn Fn(&Self) -> usize| several.iter().map(|s| f(s) as i64).collect::<Vec<_>>();
        let columns = vec![
            Column::text("urn", text(&|s| s.of.clone())),
            Column::text("interval", text(&|s| s.interval.name().into())),
            Column::int("n", count(&|s| s.n)),
            Column::int("studies", count(&|s| s.found.len())),
            Column::int("no interval", count(&|s| s.found.len() - s.given().count())),
            Column::text("hold the truth [95%]", text(&|s| figure(&s.covered()))),
            Column::int("lie below it", count(&|s| s.given().filter(|e| e[2] < s.truth).count())),
            Column::int("lie above it", count(&|s| s.given().filter(|e| e[1] > s.truth).count())),
        ];
        let note =
            "Shares are of the intervals that were given. The studies are simulated; the truth is the mean of the urn.";
        Ok(Table::new("How often does a 95% interval hold the truth?", columns)?.with_note(note))
    }

    /// All intervals, in the order of what the studies found.
    pub fn figure(&self) -> Figure {
        let mut sorted: Vec<[f64; 3]> = self.given().collect();
        sorted.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let ends = |end: usize| sorted.iter().enumerate().map(|(i, e)| (i as f64 + 1.0, e[end])).collect();
        let misses = |[_, low, high]: &[f64; 3]| self.truth < *low || *high < self.truth;
        let missed = sorted.iter().enumerate().filter(|(_, e)| misses(e)).map(|(i, e)| (i as f64 + 1.0, e[0]));
        let panel = Panel::new("", "study, from the lowest to the highest figure", "ends of the 95% interval")
            .line("upper end", ends(2))
            .line("lower end", ends(1))
            .scatter("figures of intervals that miss", missed.collect())
            .level(self.truth, "truth");
        let title = format!("{} studies of {} cases each", sorted.len(), self.n);
        Figure::new(&title).panel(panel).note(&format!("Interval: {}.", self.interval.name()))
    }
}

fn words(reply: &Reply) -> impl Iterator<Item = String> + '_ {
    let words = reply.text.split(|c: char| !c.is_alphabetic() && c != '\'').map(|w| w.trim_matches('\''));
    words.filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// The `k` most frequent words of some replies, the most frequent one first.
///
/// # Example
/// ```
/// use hhalign::{lesson::studies::frequent_words, sample::Reply};
/// assert_eq!(frequent_words(&[Reply::from_text("No, I can't! 'No,' I can't, no.")], 3), ["no", "can't", "i"]);
/// ```
pub fn frequent_words(replies: &[Reply], k: usize) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    replies.iter().flat_map(words).for_each(|word| *counts.entry(word).or_default() += 1);
    let mut ranked: Vec<(String, usize)> = counts.into_iter().collect();
    ranked.sort_by_key(|r| std::cmp::Reverse(r.1));
    ranked.into_iter().take(k).map(|(word, _)| word).collect()
}

/// For each word a p-value: do two models use it equally often in replies to the same prompts?
///
/// By [`permutation_test`] of how often the word stands in the reply of either model, prompt by prompt. With many words this
/// is a machine that finds differences where there are none.
///
/// # Shapes
/// K words, n replies of either model -> K
///
/// # Errors
/// Another number of replies of one model than of the other.
///
/// # Example
/// ```
/// use hhalign::{lesson::studies::word_tests, sample::Reply};
/// let (yes, no) = (vec![Reply::from_text("yes please"); 8], vec![Reply::from_text("no please"); 8]);
/// let p = word_tests(&["yes".into(), "please".into()], &yes, &no, 0)?;
/// assert!(p[0] < 0.02 && p[1] == 1.0);
/// # Ok::<(), hhalign::error::Error>(())
/// ```
pub fn word_tests(list: &[String], first: &[Reply], second: &[Reply], seed: u64) -> Result<Vec<f64>> {
    if first.len() != second.len() {
        let got = format!("{} and {} replies", first.len(), second.len());
        return Err(Error::new("both models must answer the same prompts", got, "draw replies to one list of prompts"));
    }
    let count = |reply: &Reply, word: &str| words(reply).filter(|w| w == word).count() as f64;
    parallel::map(list, |word| {
        let gains: Vec<f64> = first.iter().zip(second).map(|(a, b)| count(b, word) - count(a, word)).collect();
        let sum = |swap: &[bool]| gains.iter().zip(swap).map(|(g, s)| if *s { -g } else { *g }).sum();
        Ok(permutation_test(gains.len(), seed, sum))
    })
}
