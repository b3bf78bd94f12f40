//! Simulated studies of a known truth: how often an interval contains it, and what many tests find
//! if there is nothing to find.

use std::collections::BTreeMap;

use rand::Rng as _;

use crate::base::error::{Error, Result};
use crate::base::parallel;
use crate::base::rng::stream;
use crate::infer::sample::Reply;
use crate::show::plot::{Figure, Panel};
use crate::show::table::{Column, Table};
use crate::stats::{Estimate, bootstrap_mean, bootstrap_score, permutation_test, wilson};

/// A method for the 95% interval of a mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interval {
    /// Mean ± 1.96 standard errors, as in most textbooks.
    Textbook,
    /// [`wilson`], for cases that are 0 or 1.
    Wilson,
    /// [`bootstrap_mean`].
    BootstrapT,
    /// [`bootstrap_score`], for scores in [0, 1] that are rarely above this number.
    Score(f64),
}

impl Interval {
    /// Returns the name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Textbook => "mean ± 1.96 standard errors",
            Self::Wilson => "Wilson",
            Self::BootstrapT => "bootstrap-t",
            Self::Score(_) => "bootstrap-t, and what may be missed",
        }
    }

    /// Returns mean and interval of the cases; `None` if there are too few.
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

/// A population with a known mean: all its cases.
#[derive(Debug, Clone)]
pub struct Urn {
    /// The name in tables.
    pub name: String,
    cases: Vec<f64>,
}

impl Urn {
    /// Makes an urn of balls marked 1 and balls marked 0.
    ///
    /// # Errors
    /// No ball.
    ///
    /// # Example
    /// ```
    /// assert_eq!(hhalign::notebook::lesson::studies::Urn::balls(68, 32)?.truth(), 0.68);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn balls(ones: usize, zeros: usize) -> Result<Self> {
        Self::new(
            &format!("{ones} of {}", ones + zeros),
            [vec![1.0; ones], vec![0.0; zeros]].concat(),
        )
    }

    /// Makes an urn of any numbers.
    ///
    /// # Errors
    /// No number, or one that is not finite.
    pub fn new(name: &str, cases: Vec<f64>) -> Result<Self> {
        if cases.is_empty() || cases.iter().any(|c| !c.is_finite()) {
            let got = format!("{} values", cases.len());
            return Err(Error::new(
                "an urn needs numbers",
                got,
                "give one finite number for each case",
            ));
        }
        Ok(Self { name: name.into(), cases })
    }

    /// Returns the mean of the urn.
    pub fn truth(&self) -> f64 {
        self.cases.iter().sum::<f64>() / self.cases.len() as f64
    }

    /// Simulates `count` studies. Each draws `n` cases with replacement and makes an interval.
    ///
    /// # Errors
    /// Fewer than two cases, no study, or Wilson's interval for cases that are not 0 or 1.
    ///
    /// # Example
    /// ```
    /// use hhalign::notebook::lesson::studies::{Interval, Urn};
    /// let studies = Urn::balls(68, 32)?.studies(50, 400, Interval::Wilson, 0)?;
    /// assert_eq!((studies.truth, studies.found.len()), (0.68, 400));
    /// assert!(studies.covered().low < 0.95 && studies.covered().high > 0.95);
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn studies(
        &self,
        n: usize,
        count: usize,
        interval: Interval,
        seed: u64,
    ) -> Result<Studies> {
        if n < 2 || count == 0 {
            let got = format!("{count} studies of {n} cases");
            return Err(Error::new(
                "there must be at least one study of at least two cases",
                got,
                "such as 200 studies of 50",
            ));
        }
        if interval == Interval::Wilson && self.cases.iter().any(|c| *c != 0.0 && *c != 1.0) {
            let fix = "take Interval::BootstrapT";
            return Err(Error::new(
                "Wilson's interval is for 0 and 1",
                format!("other numbers in {}", self.name),
                fix,
            ));
        }
        let seeds: Vec<u64> = (0..count as u64).collect();
        let found = parallel::map(&seeds, |&i| {
            let mut rng = stream(seed, "study", &[n as u64, i]);
            let drawn: Vec<f64> =
                (0..n).map(|_| self.cases[rng.random_range(0..self.cases.len())]).collect();
            Ok(interval.of(&drawn, i))
        })?;
        Ok(Studies { of: self.name.clone(), truth: self.truth(), n, interval, found })
    }
}

/// Many studies of the same urn, each with its own cases.
#[derive(Debug, Clone)]
pub struct Studies {
    /// The urn's name.
    pub of: String,
    /// The mean of the urn.
    pub truth: f64,
    /// Cases in each study.
    pub n: usize,
    /// The method of their intervals.
    pub interval: Interval,
    /// Mean, lower and upper end of each study; `None` for a study without an interval.
    pub found: Vec<Option<[f64; 3]>>,
}

impl Studies {
    fn intervals(&self) -> impl Iterator<Item = [f64; 3]> + '_ {
        self.found.iter().copied().flatten()
    }

    fn share(&self, holds: impl Fn([f64; 3]) -> bool) -> Estimate {
        wilson(self.intervals().filter(|e| holds(*e)).count() as f64, self.intervals().count())
    }

    /// Returns the share of intervals that contain the truth, among studies with an interval.
    pub fn covered(&self) -> Estimate {
        self.share(|[_, low, high]| low <= self.truth && self.truth <= high)
    }

    /// Returns the share of intervals entirely above a level: studies that could tell the truth
    /// from it.
    pub fn above(&self, level: f64) -> Estimate {
        self.share(|[_, low, _]| low > level)
    }

    /// Returns a table with one row for each of several sets of studies.
    ///
    /// # Errors
    /// A failure of the table library.
    pub fn table(several: &[Self]) -> Result<Table> {
        let text = |f: &dyn Fn(&Self) -> String| several.iter().map(f).collect::<Vec<_>>();
        let count =
            |f: &dyn Fn(&Self) -> usize| several.iter().map(|s| f(s) as i64).collect::<Vec<_>>();
        let columns = vec![
            Column::text("urn", text(&|s| s.of.clone())),
            Column::text("interval", text(&|s| s.interval.name().into())),
            Column::int("n", count(&|s| s.n)),
            Column::int("studies", count(&|s| s.found.len())),
            Column::int("no interval", count(&|s| s.found.len() - s.intervals().count())),
            Column::text("contain the truth [95%]", text(&|s| s.covered().cell())),
            Column::int("below it", count(&|s| s.intervals().filter(|e| e[2] < s.truth).count())),
            Column::int("above it", count(&|s| s.intervals().filter(|e| e[1] > s.truth).count())),
        ];
        let note = "Shares are of studies with an interval. \
                    The studies are simulated; the truth is the mean of the urn.";
        Ok(Table::new("How often does a 95% interval contain the truth?", columns)?.with_note(note))
    }

    /// Draws all intervals in the order of the studies' means.
    pub fn figure(&self) -> Figure {
        let mut sorted: Vec<[f64; 3]> = self.intervals().collect();
        sorted.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let ends =
            |end: usize| sorted.iter().enumerate().map(|(i, e)| (i as f64 + 1.0, e[end])).collect();
        let misses = |[_, low, high]: &[f64; 3]| self.truth < *low || *high < self.truth;
        let missed = sorted
            .iter()
            .enumerate()
            .filter(|(_, e)| misses(e))
            .map(|(i, e)| (i as f64 + 1.0, e[0]));
        let panel = Panel::new(
            "",
            "study, from the lowest to the highest mean",
            "ends of the 95% interval",
        )
        .line("upper end", ends(2))
        .line("lower end", ends(1))
        .scatter("means whose interval misses", missed.collect())
        .level(self.truth, "truth");
        let title = format!("{} studies of {} cases each", sorted.len(), self.n);
        Figure::new(&title).panel(panel).note(&format!("Interval: {}.", self.interval.name()))
    }
}

fn words(reply: &Reply) -> impl Iterator<Item = String> + '_ {
    let words =
        reply.text.split(|c: char| !c.is_alphabetic() && c != '\'').map(|w| w.trim_matches('\''));
    words.filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// Returns the `k` most frequent words of the replies, the most frequent first.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::studies::frequent_words;
/// use hhalign::infer::sample::Reply;
/// let reply = Reply::from_text("No, I can't! 'No,' I can't, no.");
/// assert_eq!(frequent_words(&[reply], 3), ["no", "can't", "i"]);
/// ```
pub fn frequent_words(replies: &[Reply], k: usize) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    replies.iter().flat_map(words).for_each(|word| *counts.entry(word).or_default() += 1);
    let mut ranked: Vec<(String, usize)> = counts.into_iter().collect();
    ranked.sort_by_key(|r| std::cmp::Reverse(r.1));
    ranked.into_iter().take(k).map(|(word, _)| word).collect()
}

/// Tests for each word whether two models use it equally often in replies to the same prompts;
/// returns the p-values.
///
/// The test is [`permutation_test`] of the word's count in the replies of either model, prompt by
/// prompt. With many words this procedure finds differences where there are none.
///
/// # Shapes
/// K words, n replies of either model -> K
///
/// # Errors
/// Different numbers of replies of the two models.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::studies::word_tests;
/// use hhalign::infer::sample::Reply;
/// let replies = |text: &str| vec![Reply::from_text(text); 8];
/// let (yes, no) = (replies("yes please"), replies("no please"));
/// let p = word_tests(&["yes".into(), "please".into()], &yes, &no, 0)?;
/// assert!(p[0] < 0.02 && p[1] == 1.0);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn word_tests(
    list: &[String],
    first: &[Reply],
    second: &[Reply],
    seed: u64,
) -> Result<Vec<f64>> {
    if first.len() != second.len() {
        let got = format!("{} and {} replies", first.len(), second.len());
        return Err(Error::new(
            "both models must answer the same prompts",
            got,
            "sample replies of both to one list of prompts",
        ));
    }
    let count = |reply: &Reply, word: &str| words(reply).filter(|w| w == word).count() as f64;
    parallel::map(list, |word| {
        let gains: Vec<f64> =
            first.iter().zip(second).map(|(a, b)| count(b, word) - count(a, word)).collect();
        let sum =
            |swap: &[bool]| gains.iter().zip(swap).map(|(g, s)| if *s { -g } else { *g }).sum();
        Ok(permutation_test(gains.len(), seed, sum))
    })
}
