//! Exercises of notebook 02: what β changes with fixed weights, and what it does not.

use crate::base::error::Result;
use crate::loss::PairLogps;
use crate::notebook::lesson::Check;

/// Checks which number stays the same when β changes and the weights do not. `answer` is its name
/// in the lab.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::beta::check_constant;
/// assert!(check_constant("accuracy").right);
/// assert!(!check_constant("loss").right);
/// ```
pub fn check_constant(answer: &str) -> Check {
    let no = |because: &str| Check { right: false, because: because.into() };
    match answer.trim().to_lowercase().as_str() {
        "" => no(
            "write a name between the quotes: \"loss\", \"accuracy\", \"margin\" or \"gradient\"",
        ),
        a if a.contains("accura") => Check {
            right: true,
            because:
                "a pair is ranked right when D > 0, and β > 0 cannot change the sign of D: only \
                 other weights can"
                    .into(),
        },
        a if a.contains("loss") => {
            no("−log σ(βD) is steeper for a larger β: move the slider and watch the mean loss")
        }
        a if a.contains("margin") || a.contains("reward") => {
            no("the reward margin is β · D, so β scales it")
        }
        a if a.contains("grad") || a.contains("weight") => {
            no("the pull of a pair is β σ(−βD): β is in it twice")
        }
        _ => no("choose one of the lab's numbers: loss, accuracy, margin or gradient"),
    }
}

/// Checks the λ for a policy trained at `trained` to decode as if it had been trained at `wanted`.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::beta::check_lambda;
/// assert!(check_lambda(2.0, 0.1, 0.05).right);
/// assert!(check_lambda(0.5, 0.1, 0.05).because.contains("upside down"));
/// ```
pub fn check_lambda(answer: f64, trained: f64, wanted: f64) -> Check {
    let right = trained / wanted;
    let near = |a: f64| (answer - a).abs() < 1e-6 * a.abs().max(1.0);
    let because = if near(right) {
        format!(
            "λ = {trained} / {wanted} = {right}: a smaller β means a weaker constraint to the \
             reference, so the policy's part grows"
        )
    } else if answer == 0.0 {
        "change the 0.0: λ = β of training / β that you want".into()
    } else if near(1.0 / right) {
        "upside down: a smaller β moves further from the reference, so λ must be above 1".into()
    } else {
        format!("λ is the β of training ({trained}) divided by the β that you want ({wanted})")
    };
    Check { right: near(right), because }
}

/// Checks the β at which the average pair pulls with half of its strength at a tie, that is, the
/// mean of σ(−βD) is one quarter, within one hundredth.
///
/// # Errors
/// A failure of the tensor library.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::beta::check_pull;
/// use hhalign::loss::{PairLogps, PairValues, Values};
/// let zero = Values::new(&[0.0]);
/// let logps = PairLogps::new(PairValues {
///     policy_chosen: Values::new(&[10.0]),
///     policy_rejected: zero,
///     ref_chosen: zero,
///     ref_rejected: zero,
///     chosen_tokens: vec![3],
///     rejected_tokens: vec![3],
/// })?;
/// assert!(check_pull(3f64.ln() / 10.0, &logps)?.right); // σ(−ln 3) = 1/4
/// assert!(!check_pull(0.5, &logps)?.right);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn check_pull(answer: f64, logps: &PairLogps) -> Result<Check> {
    let no = |because: String| Ok(Check { right: false, because });
    if !(answer > 0.0 && answer.is_finite()) {
        return no("change the 0.0 to a positive β; the lab's slider helps to find it".into());
    }
    let pull = (-answer * logps.margins()).sigmoid()?.mean()?;
    if (pull - 0.25).abs() > 0.01 {
        let direction = if pull > 0.25 { "larger" } else { "smaller" };
        let text = format!("at β = {answer} the mean of σ(−βD) is {pull:.3}: try a {direction} β");
        let limit = (-1e6 * logps.margins()).sigmoid()?.mean()?;
        return no(if limit > 0.26 {
            format!(
                "{text} (in {:.0}% of the pairs D is below 0: their σ rises with β, so 0.25 may \
                 not be reached)",
                limit * 100.0
            )
        } else {
            text
        });
    }
    Ok(Check {
        right: true,
        because: format!(
            "the mean of σ(−βD) is {pull:.3}: most pairs are past the point where they pull hard"
        ),
    })
}
