//! The table.

use folkmoot_sdk::rejection::Rejection;

use crate::models::Policy;
use crate::trace::Trace;
use crate::{Measures, Options, run};

/// The headings of the table.
pub const HEADINGS: [&str; 9] = [
    "trace",
    "policy",
    "moves",
    "to bound",
    "taken back",
    "worst imbalance",
    "at the end",
    "zone violations",
    "unowned s",
];

/// A policy's trial.
#[derive(Clone, Debug)]
pub struct Row {
    /// The trace.
    pub trace: &'static str,
    /// The policy.
    pub policy: &'static str,
    /// What it did.
    pub measures: Measures,
}

impl Row {
    /// Runs a trial.
    ///
    /// # Errors
    ///
    /// The policy's rejection.
    pub fn of(
        trace: &Trace,
        (name, policy): (&'static str, Policy),
        options: &Options,
    ) -> Result<Self, Rejection> {
        Ok(Self {
            trace: trace.name,
            policy: name,
            measures: run(trace, policy, options)?,
        })
    }

    /// What was moved as a part of the lower bound; none where both are 0.
    #[must_use]
    pub fn to_bound(&self) -> Option<f64> {
        (self.measures.bound > 0.0).then(|| self.measures.planned / self.measures.bound)
    }

    /// The cells under [`HEADINGS`].
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let measures = &self.measures;
        let ratio = |ratio: f64| format!("{ratio:.2}");
        let to_bound = match self.to_bound() {
            Some(part) => ratio(part),
            None if measures.planned > 0.0 => "bound 0".to_owned(),
            None => "–".to_owned(),
        };
        vec![
            self.trace.to_owned(),
            self.policy.to_owned(),
            measures.moves.to_string(),
            to_bound,
            measures.taken_back.to_string(),
            ratio(measures.imbalance),
            ratio(measures.imbalance_at_end),
            measures.zone_violations.to_string(),
            measures.unowned_s.to_string(),
        ]
    }
}

/// Rows as a table in Markdown.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADINGS.map(str::to_owned));
    text += "|---|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in rows {
        text += &line(&row.cells());
    }
    text
}
