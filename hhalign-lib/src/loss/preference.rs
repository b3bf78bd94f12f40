//! The losses, one match arm each.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{PairLogps, check_beta};
use crate::base::error::{Error, Result};
use crate::model::ops::log_sigmoid;

/// Cap on exponents: e^80 is far above any sensible score and far below f32's largest number.
const MAX_EXPONENT: f64 = 80.0;

/// A preference loss and its own settings. `beta` is an argument of [`PreferenceLoss::losses`].
///
/// The variants have TRL's names where TRL has the loss. In the formulas, a and b are the
/// log-ratios of the chosen and the rejected reply, D = a - b, ls = log σ, s = σ, Lw and Ll are the
/// lengths of the replies, and ε is the label smoothing.
///
/// # Example
/// ```
/// use hhalign::loss::{PairLogps, PairValues, PreferenceLoss, Values};
/// let same = Values::new(&[-12.0, -30.0]);
/// let logps = PairLogps::new(PairValues {
///     policy_chosen: same, ref_chosen: same, policy_rejected: same, ref_rejected: same,
///     chosen_tokens: vec![4, 9], rejected_tokens: vec![5, 7],
/// })?;
/// let loss = PreferenceLoss::Sigmoid.mean(&logps, 0.1)?;
/// assert!((loss - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub enum PreferenceLoss {
    /// DPO: -ls(βD). arXiv 2305.18290, equation 7.
    #[default]
    Sigmoid,
    /// Conservative DPO: -(1-ε) ls(βD) - ε ls(-βD). Mitchell 2023.
    Cdpo {
        /// Assumed share of flipped labels.
        label_smoothing: f64,
    },
    /// Robust DPO: [-(1-ε) ls(βD) + ε ls(-βD)] / (1 - 2ε). arXiv 2403.00409.
    Robust {
        /// Assumed share of flipped labels.
        label_smoothing: f64,
    },
    /// SLiC: max(0, 1 - βD). arXiv 2305.10425.
    Hinge,
    /// IPO on summed log-probabilities, as in the paper: (D - 1/(2β))². arXiv 2310.12036, equation
    /// 17.
    Ipo,
    /// IPO on log-probabilities per token, as in TRL: (a/Lw - b/Ll - 1/(2β))².
    IpoPerToken,
    /// EXO for pairs: s(βD)[ls(βD) - ln(1-ε)] + s(-βD)[ls(-βD) - ln ε]. arXiv 2402.00856, equation
    /// 16.
    ExoPair {
        /// Smoothing of the target, 0.001 in TRL.
        label_smoothing: f64,
    },
    /// NCA for pairs: -ls(βa) - ls(-βa)/2 - ls(-βb)/2. arXiv 2402.05369.
    NcaPair,
    /// BCO for pairs, without BCO's running mean: -ls(βa) - ls(-βb). arXiv 2404.04656.
    BcoPair,
    /// SPPO with hard labels: (a - 1/(2β))² + (b + 1/(2β))². arXiv 2405.00675.
    SppoHard,
    /// AOT, paired: sorted log π margins minus sorted log ref margins over the batch, then cDPO.
    /// arXiv 2406.05882.
    Aot {
        /// Assumed share of flipped labels.
        label_smoothing: f64,
    },
    /// AOT, unpaired: sorted a minus sorted b over the batch, then cDPO.
    AotUnpaired {
        /// Assumed share of flipped labels.
        label_smoothing: f64,
    },
    /// APO-zero: 1 - s(βa) + s(βb). arXiv 2408.06266.
    ApoZero,
    /// APO-down: s(βa) + 1 - s(βD). arXiv 2408.06266.
    ApoDown,
    /// DiscoPOP: with x = βD and m = s(x/τ): -ls(x)(1-m) + e^(-x) m. arXiv 2406.08414.
    DiscoPop {
        /// Temperature of the blend, 0.05 in the paper.
        tau: f64,
    },
    /// DPO on log-probabilities per token: -ls(β(a/Lw - b/Ll)).
    SigmoidNorm,
    /// f-DPO with the forward KL, whose scores are -e^(-a) and -e^(-b). arXiv 2309.16240.
    ForwardKl,
    /// f-DPO with the Jensen-Shannon divergence, whose scores are ls(a) and ls(b). arXiv
    /// 2309.16240.
    JensenShannon,
    /// f-DPO with an alpha divergence, whose scores are e^((α-1)a)/(α-1) and e^((α-1)b)/(α-1).
    /// arXiv 2309.16240.
    AlphaDivergence {
        /// α; not 1, which is the reverse KL of plain DPO.
        alpha: f64,
    },
    /// SimPO, which has no reference: -ls(β(log π(y_w)/Lw - log π(y_l)/Ll) - γ). arXiv 2405.14734.
    SimPo {
        /// Target margin γ.
        gamma: f64,
    },
    /// CPO, which has no reference: -ls(β(log π(y_w) - log π(y_l))) + α · NLL per token of y_w.
    /// arXiv 2401.08417.
    Cpo {
        /// Weight of the likelihood term.
        alpha: f64,
    },
    /// ORPO, which has no reference: NLL per token of y_w - λ ls(log odds ratio). arXiv 2403.07691,
    /// equation 6.
    Orpo {
        /// Weight of the odds ratio.
        lambda: f64,
    },
    /// KTO on pairs, mean of both sides: ½[1 - s(β(a - z))] + ½[1 - s(β(z - b))]. arXiv 2402.01306,
    /// equation 8.
    Kto {
        /// The estimate z ≥ 0 of KL(π || ref) from other pairs; it is zero before training.
        kl: f64,
    },
}

impl PreferenceLoss {
    /// All losses with the settings of their papers or of TRL, for lessons and tests.
    ///
    /// α of the alpha divergence is 0.5, half-way between forward and reverse KL. TRL's default is
    /// the forward KL, which is a separate loss here.
    pub const ALL: [Self; 23] = [
        Self::Sigmoid,
        Self::Cdpo { label_smoothing: 0.1 },
        Self::Robust { label_smoothing: 0.1 },
        Self::Hinge,
        Self::Ipo,
        Self::IpoPerToken,
        Self::ExoPair { label_smoothing: 1e-3 },
        Self::NcaPair,
        Self::BcoPair,
        Self::SppoHard,
        Self::Aot { label_smoothing: 0.0 },
        Self::AotUnpaired { label_smoothing: 0.0 },
        Self::ApoZero,
        Self::ApoDown,
        Self::DiscoPop { tau: 0.05 },
        Self::SigmoidNorm,
        Self::ForwardKl,
        Self::JensenShannon,
        Self::AlphaDivergence { alpha: 0.5 },
        Self::SimPo { gamma: 0.5 },
        Self::Cpo { alpha: 1.0 },
        Self::Orpo { lambda: 0.1 },
        Self::Kto { kl: 0.0 },
    ];

    /// Returns the name of the loss: TRL's, if TRL has the loss.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Cdpo { .. } => "cdpo",
            Self::Robust { .. } => "robust",
            Self::Hinge => "hinge",
            Self::Ipo => "ipo",
            Self::IpoPerToken => "ipo_per_token",
            Self::ExoPair { .. } => "exo_pair",
            Self::NcaPair => "nca_pair",
            Self::BcoPair => "bco_pair",
            Self::SppoHard => "sppo_hard",
            Self::Aot { .. } => "aot",
            Self::AotUnpaired { .. } => "aot_unpaired",
            Self::ApoZero => "apo_zero",
            Self::ApoDown => "apo_down",
            Self::DiscoPop { .. } => "discopop",
            Self::SigmoidNorm => "sigmoid_norm",
            Self::ForwardKl => "forward_kl",
            Self::JensenShannon => "js_divergence",
            Self::AlphaDivergence { .. } => "alpha_divergence",
            Self::SimPo { .. } => "simpo",
            Self::Cpo { .. } => "cpo",
            Self::Orpo { .. } => "orpo",
            Self::Kto { .. } => "kto",
        }
    }

    /// Returns whether the loss uses a reference model.
    pub fn uses_reference(&self) -> bool {
        !matches!(self, Self::SimPo { .. } | Self::Cpo { .. } | Self::Orpo { .. })
    }

    /// Computes the loss of each pair.
    ///
    /// # Shapes
    /// log-probabilities (B) -> (B)
    ///
    /// # Errors
    /// `beta` or a setting is out of range, or the lengths of the log-probabilities differ.
    pub fn losses(&self, logps: &PairLogps, beta: f64) -> Result<Tensor> {
        self.check(beta)?;
        logps.check()?;
        let [a, b] = logps.logratios();
        let d = (&a - &b)?;
        let half = 0.5 / beta;
        let ls = |x: &Tensor| log_sigmoid(x);
        let sigma = |x: &Tensor| -> Result<Tensor> { Ok(log_sigmoid(x)?.exp()?) };
        // -(1-ε) ls(x) - ε ls(-x), a form that several losses share.
        let smoothed = |x: &Tensor, eps: f64| -> Result<Tensor> {
            Ok(((ls(x)? * -(1.0 - eps))? - (ls(&x.neg()?)? * eps)?)?)
        };
        let x = (&d * beta)?;
        Ok(match *self {
            Self::Sigmoid => ls(&x)?.neg()?,
            Self::Cdpo { label_smoothing } => smoothed(&x, label_smoothing)?,
            Self::Robust { label_smoothing: eps } => {
                (((ls(&x)? * -(1.0 - eps))? + (ls(&x.neg()?)? * eps)?)? / (1.0 - 2.0 * eps))?
            }
            Self::Hinge => (x.neg()? + 1.0)?.relu()?,
            Self::Ipo => (d - half)?.sqr()?,
            Self::IpoPerToken => {
                let [lw, ll] = logps.lengths()?;
                (((a / lw)? - (b / ll)?)? - half)?.sqr()?
            }
            Self::ExoPair { label_smoothing: eps } => {
                let minus = x.neg()?;
                let on_chosen = (sigma(&x)? * (ls(&x)? - (1.0 - eps).ln())?)?;
                (on_chosen + (sigma(&minus)? * (ls(&minus)? - eps.ln())?)?)?
            }
            Self::NcaPair => {
                let (raise_a, lower_a, lower_b) =
                    (ls(&(&a * beta)?)?, ls(&(&a * -beta)?)?, ls(&(&b * -beta)?)?);
                (raise_a.neg()? - ((lower_a + lower_b)? * 0.5)?)?
            }
            Self::BcoPair => (ls(&(&a * beta)?)? + ls(&(&b * -beta)?)?)?.neg()?,
            Self::SppoHard => ((a - half)?.sqr()? + (b + half)?.sqr()?)?,
            Self::Aot { label_smoothing } => {
                let policy = sorted(&(&logps.policy_chosen - &logps.policy_rejected)?)?;
                let reference = sorted(&(&logps.ref_chosen - &logps.ref_rejected)?)?;
                smoothed(&((policy - reference)? * beta)?, label_smoothing)?
            }
            Self::AotUnpaired { label_smoothing } => {
                smoothed(&((sorted(&a)? - sorted(&b)?)? * beta)?, label_smoothing)?
            }
            Self::ApoZero => ((sigma(&(&b * beta)?)? - sigma(&(&a * beta)?)?)? + 1.0)?,
            Self::ApoDown => ((sigma(&(&a * beta)?)? - sigma(&x)?)? + 1.0)?,
            Self::DiscoPop { tau } => {
                let gate = (&x / tau)?;
                // e^(-x) m is computed as e^(-x + ls(x/τ)): e^(-x) alone overflows where m is zero.
                ((ls(&x)?.neg()? * sigma(&gate.neg()?)?)? + (ls(&gate)? - &x)?.exp()?)?
            }
            Self::SigmoidNorm => {
                let [lw, ll] = logps.lengths()?;
                ls(&(((a / lw)? - (b / ll)?)? * beta)?)?.neg()?
            }
            Self::ForwardKl => {
                ls(&((capped_exp(&b.neg()?)? - capped_exp(&a.neg()?)?)? * beta)?)?.neg()?
            }
            Self::JensenShannon => ls(&((ls(&a)? - ls(&b)?)? * beta)?)?.neg()?,
            Self::AlphaDivergence { alpha } => {
                let power = alpha - 1.0;
                let scores = (capped_exp(&(&a * power)?)? - capped_exp(&(&b * power)?)?)?;
                ls(&(scores * (beta / power))?)?.neg()?
            }
            Self::SimPo { gamma } => {
                let [lw, ll] = logps.lengths()?;
                let margin = ((&logps.policy_chosen / lw)? - (&logps.policy_rejected / ll)?)?;
                ls(&((margin * beta)? - gamma)?)?.neg()?
            }
            Self::Cpo { alpha } => {
                let [lw, _] = logps.lengths()?;
                let margin = (&logps.policy_chosen - &logps.policy_rejected)?;
                let nll = (&logps.policy_chosen / lw)?.neg()?;
                (ls(&(margin * beta)?)?.neg()? + (nll * alpha)?)?
            }
            Self::Orpo { lambda } => {
                let [lw, ll] = logps.lengths()?;
                let (w, l) = ((&logps.policy_chosen / lw)?, (&logps.policy_rejected / ll)?);
                let log_odds = ((&w - &l)? - (log_one_minus_exp(&w)? - log_one_minus_exp(&l)?)?)?;
                (w.neg()? - (ls(&log_odds)? * lambda)?)?
            }
            Self::Kto { kl } => {
                let desirable = sigma(&((a - kl)? * beta)?)?;
                let undesirable = sigma(&((b.neg()? + kl)? * beta)?)?;
                (((desirable + undesirable)? * -0.5)? + 1.0)?
            }
        })
    }

    /// Computes the mean loss over the pairs.
    ///
    /// # Errors
    /// As [`PreferenceLoss::losses`].
    pub fn mean(&self, logps: &PairLogps, beta: f64) -> Result<f64> {
        super::mean(&self.losses(logps, beta)?)
    }

    /// Checks `beta` and the settings of the loss.
    ///
    /// # Errors
    /// `beta` or a setting is out of range. The error names the setting, its value and its range.
    pub fn check(&self, beta: f64) -> Result<()> {
        check_beta(beta)?;
        let (name, value, low, high) = match *self {
            Self::Cdpo { label_smoothing: e } | Self::Robust { label_smoothing: e } => {
                ("label_smoothing", e, 0.0, 0.499_999)
            }
            Self::Aot { label_smoothing: e } | Self::AotUnpaired { label_smoothing: e } => {
                ("label_smoothing", e, 0.0, 0.499_999)
            }
            Self::ExoPair { label_smoothing: e } => ("label_smoothing", e, 1e-12, 0.5),
            Self::DiscoPop { tau } => ("tau", tau, 1e-6, 1e6),
            Self::AlphaDivergence { alpha } if (alpha - 1.0).abs() < 1e-6 => {
                return Err(Error::new(
                    "alpha = 1 is the reverse KL of plain DPO",
                    alpha.to_string(),
                    "use PreferenceLoss::Sigmoid",
                ));
            }
            Self::AlphaDivergence { alpha } => ("alpha", alpha, -1e3, 1e3),
            Self::SimPo { gamma } => ("gamma", gamma, -1e6, 1e6),
            Self::Kto { kl } => ("kl", kl, 0.0, 1e9),
            Self::Cpo { alpha: weight } | Self::Orpo { lambda: weight } => {
                ("the weight", weight, 0.0, 1e6)
            }
            _ => return Ok(()),
        };
        if !(low..=high).contains(&value) {
            return Err(Error::new(
                format!("{name} of the {} loss is out of range", self.name()),
                value.to_string(),
                format!("choose a value in [{low}, {high}]"),
            ));
        }
        Ok(())
    }
}

/// Sorts the values in ascending order and keeps their gradients.
fn sorted(x: &Tensor) -> Result<Tensor> {
    let order = x.detach().contiguous()?.arg_sort_last_dim(true)?;
    Ok(x.index_select(&order, 0)?)
}

fn capped_exp(x: &Tensor) -> Result<Tensor> {
    Ok(x.clamp(-MAX_EXPONENT * 8.0, MAX_EXPONENT)?.exp()?)
}

/// Computes ln(1 - e^x) for x < 0; x is clamped to [-1e4, -1e-6].
fn log_one_minus_exp(x: &Tensor) -> Result<Tensor> {
    Ok((x.clamp(-1e4, -1e-6)?.exp()?.neg()? + 1.0)?.log()?)
}
