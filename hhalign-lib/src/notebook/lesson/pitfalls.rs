//! Exercises of notebook 03, on mistakes: the pitfall behind a curve, and the effect of flipped
//! labels.

use std::f64::consts::LN_2;

use crate::base::error::{Error, Result};
use crate::notebook::lesson::{Check, no, yes};
use crate::show::plot::{Figure, Panel};
use crate::train::Pitfall;

/// Steps and values.
type Curve = [(f64, f64)];

/// The curves of a run with an unknown pitfall and of a clean run, recorded from runs of this
/// library.
struct Case {
    title: &'static str,
    clue: &'static str,
    panels: [(&'static str, &'static str, &'static Curve, &'static Curve); 2],
}

const CASES: [Case; 3] = [
    Case {
        title: "Case 1: “My DPO ranks most pairs right before it has learnt anything!”",
        clue: "Before the first step this run ranks nearly four of five held-out pairs right, and \
               its mean margin is over ten nats.",
        panels: [
            (
                "Held-out DPO loss",
                "loss",
                &[(0., 0.693), (5., 0.321), (10., 0.248), (20., 0.216), (30., 0.201), (40., 0.190)],
                &[(0., 0.736), (5., 0.697), (10., 0.593), (20., 0.452), (30., 0.416), (40., 0.411)],
            ),
            (
                "Held-out accuracy",
                "share ranked right",
                &[(0., 0.500), (5., 0.833), (10., 0.900), (20., 0.927), (30., 0.920), (40., 0.920)],
                &[(0., 0.787), (5., 0.793), (10., 0.807), (20., 0.833), (30., 0.867), (40., 0.873)],
            ),
        ],
    },
    Case {
        title: "Case 2: “Same data, same model, and look how low my SFT loss is!”",
        clue: "A step has eight replies. In this run every step counts the same number of tokens, \
               whatever the replies.",
        panels: [
            (
                "Training loss",
                "nats per counted token",
                &[
                    (1., 6.95),
                    (50., 4.44),
                    (100., 3.62),
                    (200., 2.91),
                    (300., 2.03),
                    (400., 2.13),
                    (500., 2.15),
                    (600., 1.26),
                    (700., 2.02),
                ],
                &[
                    (1., 6.52),
                    (50., 3.18),
                    (100., 2.69),
                    (200., 2.15),
                    (300., 1.33),
                    (400., 1.86),
                    (500., 1.65),
                    (600., 1.19),
                    (700., 1.30),
                ],
            ),
            (
                "Held-out loss",
                "nats per reply token",
                &[
                    (0., 6.95),
                    (50., 4.36),
                    (100., 3.52),
                    (200., 2.80),
                    (300., 2.46),
                    (500., 1.98),
                    (700., 1.74),
                ],
                &[
                    (0., 6.95),
                    (50., 4.95),
                    (100., 3.73),
                    (200., 3.00),
                    (300., 2.63),
                    (500., 2.15),
                    (700., 1.92),
                ],
            ),
        ],
    },
    Case {
        title: "Case 3: “My DPO loss does not move. Shall I train longer?”",
        clue: "The first training loss is 0.693 to the last digit. The data came from two \
               annotation teams.",
        panels: [
            (
                "Training loss",
                "loss",
                &[
                    (1., 0.693),
                    (6., 0.353),
                    (11., 0.268),
                    (16., 0.343),
                    (21., 0.344),
                    (26., 0.230),
                    (31., 0.227),
                    (36., 0.268),
                    (40., 0.134),
                ],
                &[
                    (1., 0.693),
                    (6., 0.757),
                    (11., 1.098),
                    (16., 0.736),
                    (21., 0.811),
                    (26., 0.811),
                    (31., 1.078),
                    (36., 0.906),
                    (40., 0.689),
                ],
            ),
            (
                "Held-out accuracy",
                "share ranked right",
                &[(0., 0.500), (5., 0.833), (10., 0.900), (20., 0.927), (30., 0.920), (40., 0.920)],
                &[(0., 0.500), (5., 0.747), (10., 0.347), (20., 0.573), (30., 0.747), (40., 0.667)],
            ),
        ],
    },
];

fn case(number: usize) -> Result<&'static Case> {
    let missing = || Error::new("no such case", number.to_string(), "the cases are 1, 2 and 3");
    number.checked_sub(1).and_then(|i| CASES.get(i)).ok_or_else(missing)
}

/// Returns the file of a case: two curves of a run with one unknown pitfall, next to a clean run,
/// and a clue.
///
/// # Errors
/// A case that is not 1, 2 or 3.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::pitfalls::case_file;
/// assert!(case_file(1)?.svg()?.contains("Held-out accuracy"));
/// assert!(case_file(4).is_err());
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn case_file(number: usize) -> Result<Figure> {
    let case = case(number)?;
    let figure =
        case.panels.iter().fold(Figure::new(case.title), |figure, (title, y, clean, suspect)| {
            let panel = Panel::new(title, "step", y)
                .line("clean", clean.to_vec())
                .line("this run", suspect.to_vec());
            figure.panel(match *y {
                "loss" => panel.level(LN_2, "ln 2"),
                "share ranked right" => panel.level(0.5, "chance"),
                _ => panel,
            })
        });
    Ok(figure.note(case.clue))
}

/// Checks which pitfall is behind a case of [`case_file`]; `None` is no answer yet.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::pitfalls::check_case;
/// use hhalign::train::Pitfall;
/// assert!(!check_case(1, None).right);
/// assert!(!check_case(1, Some(Pitfall::DropoutLeftOn)).right);
/// assert!(check_case(1, Some(Pitfall::WrongReference)).right);
/// ```
pub fn check_case(number: usize, answer: Option<Pitfall>) -> Check {
    use Pitfall as P;
    if case(number).is_err() {
        return no("the cases are 1, 2 and 3");
    }
    let Some(answer) = answer else {
        return no("put a pitfall in, such as Some(Pitfall::NoEos), and run the cell again");
    };
    match (number, answer) {
        (1, P::WrongReference) => yes(
            "policy and reference must agree at step 0, so every margin must be 0 and accuracy \
             one half; these rewards are measured from another model",
        ),
        (2, P::PaddingLeak) => yes(
            "replies differ in length, so a step can only count the same number of tokens if it \
             counts padding too; padding is easy, hence the low loss",
        ),
        (3, P::FlippedLabels { .. }) => {
            yes("policy and reference agree at step 0, so the machinery is right; the labels \
                 contradict each other, and longer training would fit the contradictions")
        }
        (1, P::DropoutLeftOn) => {
            no("dropout disturbs training only: held-out pairs are scored without it, and would \
                begin at ln 2 and one half")
        }
        (1, P::FlippedLabels { .. }) => {
            no("labels do not matter at step 0: with a margin of 0 the loss is ln 2, whichever \
                reply is labelled as chosen")
        }
        (2, P::UnmaskedPrompt) => {
            no("a good suspect, but prompts differ in length as well: then the number of counted \
                tokens would differ from step to step")
        }
        (2, P::NoEos) => {
            no("that removes one easy token from each reply: the training loss would not fall, it \
                would rise a little")
        }
        (3, P::WrongReference) => no("then the first loss would not be ln 2"),
        (3, P::DropoutLeftOn) => {
            no("then the first training loss would not be ln 2, since the policy is scored with \
                noise and the reference without")
        }
        (2, _) => no("that is a mistake in preference training, and this is an SFT run"),
        _ => no("both models count the same tokens, and at step 0 they are the same model, so \
                 margins begin at 0 whichever tokens are counted. And later? Look at both curves \
                 again"),
    }
}

/// Checks how many of 100 copies of one comparison must have flipped labels, so that the DPO loss
/// is lowest at βD = ln 3.
///
/// With n flipped labels the mean loss is -(1 - n/100) log σ(βD) - (n/100) log σ(-βD), which is
/// cDPO's loss with ε = n/100. Its derivative is zero where σ(βD) = 1 - ε.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::pitfalls::check_flips;
/// let right: Vec<usize> = (0..=100).filter(|&n| check_flips(n).right).collect();
/// assert_eq!(right, [25]);
/// assert!(check_flips(10).because.contains("2.197"));
/// ```
pub fn check_flips(n: usize) -> Check {
    let share = n as f64 / 100.0;
    match n {
        0 => no(
            "without a flip the loss falls forever: it has no lowest point. Put a number in, and \
             run the cell again",
        ),
        25 => {
            yes("σ(ln 3) = 3/4, so three quarters of the labels must say yes: 25 flips, and cDPO \
                 with ε = 0.25 on clean labels has the same loss")
        }
        50 => no("half against half: nothing is learnt, and the lowest point is at βD = 0"),
        1..100 => no(format!(
            "with {n} flips the lowest point is where σ(βD) = {:.2}, that is at βD = \
             ln({:.2}/{share:.2}) = {:.3}; ln 3 is 1.099",
            1.0 - share,
            1.0 - share,
            ((1.0 - share) / share).ln()
        )),
        100 => no("then every label is reversed: the loss falls forever as βD falls"),
        _ => no("there are only 100 labels"),
    }
}

/// Checks which pitfalls can make the first training loss of a DPO run differ from ln 2.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::pitfalls::check_first_loss;
/// use hhalign::train::Pitfall;
/// assert!(!check_first_loss(&[]).right);
/// assert!(!check_first_loss(&[Pitfall::WrongReference]).right);
/// assert!(check_first_loss(&[Pitfall::DropoutLeftOn, Pitfall::WrongReference]).right);
/// assert!(check_first_loss(&[Pitfall::NoEos]).because.contains("no end of text"));
/// ```
pub fn check_first_loss(answer: &[Pitfall]) -> Check {
    if answer.is_empty() {
        return no("put at least one pitfall into the list, and run the cell again");
    }
    for pitfall in answer {
        match pitfall {
            Pitfall::WrongReference | Pitfall::DropoutLeftOn => {}
            Pitfall::FlippedLabels { .. } => {
                return no(
                    "labels flipped: D only changes its sign, and -0 is still 0, so the first \
                     loss is ln 2",
                );
            }
            counted => {
                return no(format!(
                    "{}: policy and reference are still the same model and count the same \
                     tokens, so D is 0 and the first loss is ln 2",
                    counted.name()
                ));
            }
        }
    }
    if !answer.contains(&Pitfall::WrongReference) {
        return no("one is missing: from which model are the log-ratios measured?");
    }
    if !answer.contains(&Pitfall::DropoutLeftOn) {
        return no(
            "one is missing: what makes the same weights give different log-probabilities twice?",
        );
    }
    yes("only with these two do policy and reference differ at step 0. The held-out loss \
         distinguishes them: dropout is off there, so it begins at ln 2 unless the reference is \
         wrong")
}
