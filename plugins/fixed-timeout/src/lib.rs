//! The standard failure detector `fixed-timeout`: a session is suspected after a fixed share of its
//! timeout, and expires when the timeout is over.
//!
//! Its suspicion is the silence in timeouts. It knows neither how regular a session's touches were
//! nor how the leader fares, and holds nobody: what other detectors are measured against, and right
//! where all clients are alike.

use folkmoot_sdk::detector::prelude::*;
use serde_json::json;

/// The policy and its configuration.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct FixedTimeout {
    /// The share of its timeout after which a silent session is suspected.
    suspect_after: f64,
}

impl Default for FixedTimeout {
    /// Two of five heartbeats in a timeout were missed, and the third is late.
    fn default() -> Self {
        Self { suspect_after: 0.6 }
    }
}

impl FailureDetector for FixedTimeout {
    fn describe() -> PolicyDescription {
        let summary = "Suspects a session after a share of its timeout, and holds nobody.";
        PolicyDescription::new("fixed-timeout", env!("CARGO_PKG_VERSION"), summary)
            .needs("subjects.silent-ms")
            .configured_by(json!({
                "type": "object",
                "properties": {
                    "suspect-after": {
                        "description": "the share of its timeout after which a session is suspected",
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "maximum": 1,
                        "default": FixedTimeout::default().suspect_after,
                    },
                },
                "additionalProperties": false,
            }))
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let read: Self = configuration(bytes)?;
        if !(read.suspect_after > 0.0 && read.suspect_after <= 1.0) {
            return Err(Rejection::new(
                BAD_CONFIGURATION,
                "suspect-after is above 0 and at most 1",
            ));
        }
        *self = read;
        Ok(())
    }

    fn assess(&self, assessment: &Assessment) -> Vec<Verdict> {
        let subjects = assessment.subjects.iter();
        subjects.map(|subject| self.judge(subject)).collect()
    }
}

folkmoot_sdk::export_failure_detector!(FixedTimeout);

impl FixedTimeout {
    fn judge(&self, subject: &Subject) -> Verdict {
        let timeout_ms = subject.timeout_ms.max(1) as f64;
        let after_ms = (self.suspect_after * timeout_ms).ceil() as u64;
        let verdict = Verdict {
            suspicion: subject.silent_ms as f64 / timeout_ms,
            look_ms: after_ms.saturating_sub(subject.silent_ms),
            ..subject.verdict()
        };
        if subject.silent_ms < after_ms {
            return verdict;
        }
        let (silent_ms, timeout_ms) = (subject.silent_ms, subject.timeout_ms);
        verdict.suspect(format!(
            "silent for {silent_ms} ms of a timeout of {timeout_ms} ms"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent_for(silent_ms: u64) -> Assessment {
        Assessment {
            subjects: vec![Subject {
                key: 1,
                silent_ms,
                timeout_ms: 10_000,
                ceiling_ms: 30_000,
                ..Subject::default()
            }],
            ..Assessment::default()
        }
    }

    #[test]
    fn suspects_after_a_share_of_the_timeout_and_holds_nobody() {
        let policy = FixedTimeout::default();
        let before = policy.assess(&silent_for(5_999)).remove(0);
        assert!(!before.suspect);
        assert_eq!((before.look_ms, before.hold_ms), (1, 0));
        let after = policy.assess(&silent_for(6_000)).remove(0);
        assert!(after.suspect);
        assert_eq!(after.hold_ms, 0);
        assert_eq!(after.suspicion, 0.6);
    }

    #[test]
    fn the_share_is_configured() {
        let mut policy = FixedTimeout::default();
        policy.configure(br#"{"suspect-after": 0.3}"#).unwrap();
        assert!(policy.assess(&silent_for(3_000)).remove(0).suspect);
        for bad in [
            "{\"suspect-after\": 0}",
            "{\"suspect-after\": 2}",
            "{\"x\": 1}",
        ] {
            assert!(policy.configure(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
