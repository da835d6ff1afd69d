//! Both standard detectors on all traces, side by side.

use folkmoot_fixed_timeout::FixedTimeout;
use folkmoot_phi_accrual::PhiAccrual;
use folkmoot_sdk::detector::FailureDetector;
use folkmoot_sdk::rejection::Rejection;

use crate::trace::Trace;
use crate::worlds::{Set, worlds};
use crate::{Quality, judge};

/// Thresholds of `fixed-timeout`, in timeouts, and of `phi-accrual`, in φ.
const FIXED_RANGE: (f64, f64) = (0.15, 2.5);
const PHI_RANGE: (f64, f64) = (0.5, 300.0);
/// Mistakes in an hour of a session at which detectors are compared.
pub const MISTAKES_AN_HOUR: [f64; 4] = [3.0, 1.0, 0.3, 0.1];

/// What is run on each trace.
#[derive(Clone, Debug, Default)]
pub struct Detectors {
    /// What the other is measured against.
    pub fixed: FixedTimeout,
    /// The adaptive one.
    pub phi: PhiAccrual,
}

/// A trace's outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The trace's name.
    pub trace: String,
    /// Hours that sessions lived, all together.
    pub session_hours: f64,
    /// The sessions' timeout; the longest, where they have several.
    pub timeout_ms: f64,
    /// What `fixed-timeout` did.
    pub fixed: Quality,
    /// What `phi-accrual` did.
    pub phi: Quality,
}

impl Outcome {
    /// The mean detection time of `phi-accrual` over that of `fixed-timeout` at equal mistakes; none
    /// where one of them makes more at every threshold at which it finds crashes.
    #[must_use]
    pub fn detection_ratio(&self, mistakes_an_hour: f64) -> Option<f64> {
        let fixed_ms = self.fixed.suspicion.detection_ms(mistakes_an_hour)?;
        let phi_ms = self.phi.suspicion.detection_ms(mistakes_an_hour)?;
        Some(phi_ms / fixed_ms)
    }
}

impl Detectors {
    /// Both, each with its configuration as JSON; empty is its default.
    ///
    /// # Errors
    ///
    /// The rejection of the one that does not take it.
    pub fn configured(fixed: &[u8], phi: &[u8]) -> Result<Self, Rejection> {
        let mut detectors = Self::default();
        detectors.fixed.configure(fixed)?;
        detectors.phi.configure(phi)?;
        Ok(detectors)
    }

    /// Runs both on every generated trace of the set, each `hours` long.
    #[must_use]
    pub fn run_all(&self, set: Set, seed: u64, hours: u64) -> Vec<Outcome> {
        let run = |world: crate::worlds::World| self.run(&world.trace(seed, hours));
        worlds(set).map(run).into()
    }

    /// Runs both on one trace.
    #[must_use]
    pub fn run(&self, trace: &Trace) -> Outcome {
        let timeouts = trace.sessions.iter().map(|session| session.timeout_ms);
        Outcome {
            trace: trace.name.clone(),
            session_hours: trace.session_hours(),
            timeout_ms: timeouts.max().unwrap_or(1) as f64,
            fixed: judge(trace, &self.fixed, FIXED_RANGE),
            phi: judge(trace, &self.phi, PHI_RANGE),
        }
    }
}

/// The outcomes as tables of Markdown: of suspicion at equal mistakes, of suspicion as configured,
/// and of expiry.
#[must_use]
pub fn markdown(outcomes: &[Outcome]) -> String {
    [
        equal_mistakes(outcomes),
        as_configured(outcomes),
        expiries(outcomes),
    ]
    .join("\n")
}

fn equal_mistakes(outcomes: &[Outcome]) -> String {
    let mut text = heading(&[
        "trace",
        "detection, phi : fixed, at 3 mistakes in an hour",
        "at 1",
        "at 0.3",
        "at 0.1",
        "fixed at 0.3, s",
        "phi at 0.3, s",
    ]);
    for outcome in outcomes {
        let ratios = MISTAKES_AN_HOUR.map(|mistakes| number(outcome.detection_ratio(mistakes)));
        let seconds =
            |quality: &Quality| number(quality.suspicion.detection_ms(0.3).map(|ms| ms / 1000.0));
        let [three, one, third, tenth] = ratios;
        let (fixed, phi) = (seconds(&outcome.fixed), seconds(&outcome.phi));
        text += &row(&[outcome.trace.clone(), three, one, third, tenth, fixed, phi]);
    }
    text
}

fn as_configured(outcomes: &[Outcome]) -> String {
    let mut text = heading(&[
        "trace",
        "detector",
        "mistakes in an hour",
        "a mistake, s",
        "accuracy",
        "detection, s",
        "p99, s",
    ]);
    for outcome in outcomes {
        for (name, quality) in [("fixed", &outcome.fixed), ("phi", &outcome.phi)] {
            let point = &quality.suspicion.configured;
            text += &row(&[
                outcome.trace.clone(),
                name.to_owned(),
                format!("{:.3}", point.mistakes_an_hour),
                format!("{:.1}", point.mistake_ms / 1000.0),
                format!("{:.6}", point.accuracy()),
                format!("{:.1}", point.detection_ms / 1000.0),
                format!("{:.1}", point.detection_p99_ms / 1000.0),
            ]);
        }
    }
    text
}

fn expiries(outcomes: &[Outcome]) -> String {
    let mut text = heading(&[
        "trace",
        "session-hours",
        "crashes",
        "mistaken expiries, fixed",
        "phi",
        "crash to expiry, timeouts, p50 and p99, fixed",
        "phi",
        "before floor",
        "after ceiling",
        "by a sick observer",
    ]);
    for outcome in outcomes {
        let (fixed, phi) = (&outcome.fixed.expiry, &outcome.phi.expiry);
        text += &row(&[
            outcome.trace.clone(),
            format!("{:.0}", outcome.session_hours),
            phi.crashes.to_string(),
            fixed.mistaken.to_string(),
            phi.mistaken.to_string(),
            format!("{:.2} {:.2}", fixed.p50_timeouts, fixed.p99_timeouts),
            format!("{:.2} {:.2}", phi.p50_timeouts, phi.p99_timeouts),
            (fixed.before_floor + phi.before_floor).to_string(),
            (fixed.after_ceiling + phi.after_ceiling).to_string(),
            (fixed.by_sick_observer + phi.by_sick_observer).to_string(),
        ]);
    }
    text
}

fn heading(cells: &[&str]) -> String {
    let rule = "|---".repeat(cells.len());
    format!("| {} |\n{rule}|\n", cells.join(" | "))
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}
