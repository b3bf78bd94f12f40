//! Two models compared by a judge: every pair of replies in both orders.

use crate::base::error::{Error, Result};
use crate::eval::measure::Metrics;
use crate::eval::measure::{Better, Cases, Instrument, Measure};
use crate::eval::preferences::judge::{Judge, Question};
use crate::eval::preferences::judgements::Preference;
use crate::infer::sample::Reply;
use crate::show::table::{Column, Table};
use crate::stats::{Estimate, adjusted_rate};

/// The judgement of the replies of two models.
#[derive(Debug, Clone)]
pub struct HeadToHead {
    /// The first model, whose wins are losses here.
    pub first: String,
    /// The second model, whose wins are counted.
    pub second: String,
    /// The judge.
    pub judge: String,
    /// Outcome of each pair: 1 if the second model won, 0 if the first, 1/2 for a tie; `None` if it
    /// was not judged.
    pub outcomes: Vec<Option<f64>>,
    /// Pairs that were judged in both orders.
    pub both_orders: usize,
    /// Pairs whose judgement changed from one reply to the other when the sides were exchanged.
    pub flips: usize,
    /// (wins + ties / 2) / judged.
    pub rate: Measure,
    /// The rate at equal lengths.
    pub length_controlled: Estimate,
    /// Mean length of the second model's replies - that of the first's, in words, over the judged
    /// pairs.
    pub extra_words: f64,
}

/// Lets a judge compare two models' replies to the same prompts, each pair in both orders.
///
/// A model wins a pair if both orders agree; orders that disagree make a tie. If the judge saw only
/// one order, as people do, that one counts. A tie counts one half.
///
/// # Errors
/// Another number of replies than of prompts, or the judge fails.
///
/// # Source
/// Both orders: Zheng et al. 2023, arXiv 2306.05685, section 3.4. Equal lengths: [`adjusted_rate`].
///
/// # Example
/// ```
/// use hhalign::base::error::Result;
/// use hhalign::eval::preferences::judge::{Judge, Question, head_to_head};
/// use hhalign::eval::preferences::judgements::Preference;
/// use hhalign::infer::sample::Reply;
/// struct Longer;
/// impl Judge for Longer {
///     fn identity(&self) -> String { "the longer reply".into() }
///     fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>> {
///         let longer = |q: &Question<'_>| match q.a.len() > q.b.len() {
///             true => Some(Preference::A),
///             false => Some(Preference::B),
///         };
///         Ok(questions.iter().map(longer).collect())
///     }
/// }
/// let prompts = vec!["\n\nHuman: Hi\n\nAssistant:".to_string(); 10];
/// let [short, long] = [" Hi", " Hello there"].map(|text| vec![Reply::from_text(text); 10]);
/// let result = head_to_head(&Longer, &prompts, ("short", &short), ("long", &long), 0)?;
/// assert_eq!((result.rate.value(), result.flips, result.both_orders), (1.0, 0, 10));
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn head_to_head(
    judge: &dyn Judge,
    prompts: &[String],
    first: (&str, &[Reply]),
    second: (&str, &[Reply]),
    seed: u64,
) -> Result<HeadToHead> {
    if prompts.len() != first.1.len() || prompts.len() != second.1.len() {
        let got =
            format!("{} prompts, {} and {} replies", prompts.len(), first.1.len(), second.1.len());
        return Err(Error::new(
            "one reply of each model to each prompt is needed",
            got,
            "sample replies to the same prompts",
        ));
    }
    let question = |i: usize, a: &'_ [Reply], b: &'_ [Reply]| {
        (prompts[i].clone(), a[i].text.clone(), b[i].text.clone())
    };
    let texts: Vec<_> = (0..prompts.len())
        .flat_map(|i| [question(i, first.1, second.1), question(i, second.1, first.1)])
        .collect();
    let questions: Vec<Question<'_>> =
        texts.iter().map(|(prompt, a, b)| Question { prompt, a, b }).collect();
    let said = judge.judge(&questions)?;
    if said.len() != questions.len() {
        let got = format!("{} judgements for {} questions", said.len(), questions.len());
        return Err(Error::new(
            "a judge must answer every question",
            got,
            "return None where nothing was judged",
        ));
    }
    let score = |p: Preference, second_is_b: bool| -> f64 {
        match (p, second_is_b) {
            (Preference::Tie, _) => 0.5,
            (Preference::B, true) | (Preference::A, false) => 1.0,
            _ => 0.0,
        }
    };
    let (mut outcomes, mut both_orders, mut flips) = (vec![], 0, 0);
    for said in said.as_chunks::<2>().0 {
        let forth = said[0].map(|p| score(p, true));
        let back = said[1].map(|p| score(p, false));
        outcomes.push(match (forth, back) {
            (Some(x), Some(y)) => {
                both_orders += 1;
                flips += usize::from((x - y).abs() == 1.0);
                Some(if x == y { x } else { 0.5 })
            }
            (one, other) => one.or(other),
        });
    }
    let count = |wanted: f64| outcomes.iter().filter(|o| **o == Some(wanted)).count();
    let cases = Cases::Won { wins: count(1.0), ties: count(0.5), losses: count(0.0) };
    let name = format!("win rate of {} over {}", second.0, first.0);
    let rate =
        Measure::new(&name, Better::Higher, Instrument::Judge(judge.identity()), cases, seed);
    let words = |reply: &Reply| reply.text.split_whitespace().count() as f64;
    let judged: Vec<(f64, f64)> = (0..prompts.len())
        .filter_map(|i| Some((outcomes[i]?, words(&second.1[i]) - words(&first.1[i]))))
        .collect();
    let n = judged.len().max(1) as f64;
    let spread = (judged.iter().map(|j| j.1 * j.1).sum::<f64>() / n).sqrt().max(1.0);
    let (won, extra): (Vec<f64>, Vec<f64>) =
        judged.iter().map(|(o, d)| (*o, (d / spread).tanh())).unzip();
    Ok(HeadToHead {
        first: first.0.into(),
        second: second.0.into(),
        judge: judge.identity(),
        length_controlled: adjusted_rate(&won, &extra),
        extra_words: judged.iter().map(|j| j.1).sum::<f64>() / n,
        outcomes,
        both_orders,
        flips,
        rate,
    })
}

impl HeadToHead {
    /// The numbers of wins, ties and losses of the second model.
    pub fn counts(&self) -> [usize; 3] {
        [1.0, 0.5, 0.0].map(|wanted| self.outcomes.iter().filter(|o| **o == Some(wanted)).count())
    }

    /// Returns the result as a table of one row.
    ///
    /// # Errors
    /// The table library fails.
    pub fn table(&self) -> Result<Table> {
        Self::table_of(&[self])
    }

    /// Returns several results as a table; if judges differ, each row names its judge.
    ///
    /// # Errors
    /// No result, or the table library fails.
    ///
    /// # Example
    /// ```
    /// use hhalign::base::error::Result;
    /// use hhalign::eval::preferences::judge::{HeadToHead, Judge, Question, head_to_head};
    /// use hhalign::eval::preferences::judgements::Preference;
    /// use hhalign::infer::sample::Reply;
    /// struct Always(Preference);
    /// impl Judge for Always {
    ///     fn identity(&self) -> String { format!("always {}", self.0) }
    ///     fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>> {
    ///         Ok(vec![Some(self.0); questions.len()])
    ///     }
    /// }
    /// let (prompts, replies) = (vec!["Hi".to_string(); 9], vec![Reply::from_text(" Hi"); 9]);
    /// let (one, other) = (("one", &replies[..]), ("other", &replies[..]));
    /// let by = |judge| head_to_head(&Always(judge), &prompts, one, other, 0);
    /// let (left, tie) = (by(Preference::A)?, by(Preference::Tie)?);
    /// let table = HeadToHead::table_of(&[&left, &tie])?;
    /// assert_eq!(table.value("judge", 0)?, "always A");
    /// assert_eq!(table.value("judge", 1)?, "always tie");
    /// assert_eq!((left.flips, tie.flips), (9, 0));
    /// let alone = HeadToHead::table_of(&[&left])?;
    /// assert!(alone.value("judge", 0).is_err(), "the note names a single judge");
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn table_of(results: &[&Self]) -> Result<Table> {
        let Some(first) = results.first() else {
            return Err(Error::new(
                "a table needs a result",
                "no result",
                "give one result at least",
            ));
        };
        let count = |i: usize| results.iter().map(|r| r.counts()[i] as i64).collect::<Vec<_>>();
        let text = |f: &dyn Fn(&Self) -> String| results.iter().map(|r| f(r)).collect::<Vec<_>>();
        let one_judge = results.iter().all(|r| r.judge == first.judge);
        let mut columns = vec![
            Column::text("wins of", text(&|r| r.second.clone())),
            Column::text("against", text(&|r| r.first.clone())),
            Column::int("wins", count(0)),
            Column::int("ties", count(1)),
            Column::int("losses", count(2)),
            Column::text("win rate [95% interval]", text(&|r| r.rate.estimate().cell())),
            Column::text("at equal lengths", text(&|r| r.length_controlled.cell())),
            Column::text(
                "flips with the order",
                text(&|r| match r.both_orders {
                    0 => "seen in one order".into(),
                    n => format!("{} of {n}", r.flips),
                }),
            ),
            Column::int(
                "not judged",
                results
                    .iter()
                    .map(|r| r.outcomes.iter().filter(|o| o.is_none()).count() as i64)
                    .collect(),
            ),
            Column::float("extra words", 1, results.iter().map(|r| r.extra_words).collect()),
        ];
        let mut note = String::from("A tie counts one half; orders that disagree make a tie.");
        if one_judge {
            note = format!("Judge: {}. {note}", first.judge);
        } else {
            columns.insert(0, Column::text("judge", text(&|r| r.judge.clone())));
        }
        Ok(Table::new("Who writes the better reply?", columns)?.with_note(note))
    }
}

impl Metrics for HeadToHead {
    fn title(&self) -> String {
        format!("{} against {}", self.second, self.first)
    }

    fn measures(&self) -> Vec<&Measure> {
        vec![&self.rate]
    }
}
