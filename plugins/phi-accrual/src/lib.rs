//! The standard failure detector `phi-accrual`: how unlikely is this silence of a client that
//! lives?
//!
//! After Hayashibara, Défago, Yared and Katayama, "The φ accrual failure detector" (SRDS 2004): the
//! suspicion of a session that has been silent for `t` is `φ(t) = −log10 P(silence ≥ t)`, so that
//! at φ = 3 one silence in a thousand is a mistake. It differs where years of use showed the paper
//! to be wrong:
//!
//! - Clients differ. What is compared with the threshold is not how seldom a silence is so long but
//!   how few mistakes more patience [saves](Silence::suspicion), so that mistakes are made where
//!   they buy the most time.
//! - Real clients pause. A normal distribution calls a pause of a second impossible after a minute
//!   of regular touches; here the [tail](silence) is a mixture with rare long pauses.
//! - A young session has no history. Its [class](peers) has: figures are drawn towards those of the
//!   sessions that declare the same class.
//! - The observer has a health of its own. A leader that stood still, runs late or was just elected
//!   counts only the silence that it was [fit to hear](evidence).
//! - Silences that come together have one cause. Where a good part of a zone, or of a member's
//!   clients, is late at once, their expiry is put off: the network is gone, not they.

use folkmoot_sdk::detector::prelude::*;
use serde_json::json;

use crate::peers::{Classes, Company};
use crate::silence::Silence;

pub mod evidence;
pub mod peers;
pub mod silence;

/// For how long a verdict holds a session. Looks are more frequent, so that the next one goes on
/// or lets go.
const HOLD_MS: u64 = 500;

/// The policy and its configuration.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PhiAccrual {
    /// The suspicion at which a session is suspected: a φ, of the mistakes that patience saves.
    pub suspect_phi: f64,
    /// The φ below which a session whose timeout is over is held.
    pub expire_phi: f64,
    /// How long a session is held that is late alone, in timeouts.
    pub hold: f64,
    /// How long a session is held that is late together with others, in timeouts.
    pub hold_together: f64,
    /// The share of a zone's or a member's sessions that is late when they are late together.
    pub together: f64,
    /// How long an outage of a zone or member lasts on average, in timeouts: what a silence is
    /// measured against that is shared.
    pub outage: f64,
    /// The intervals of its own after which a session counts as much as its class.
    pub class_weight: f64,
}

impl Default for PhiAccrual {
    fn default() -> Self {
        Self {
            suspect_phi: 4.0,
            expire_phi: 6.0,
            hold: 1.2,
            hold_together: 3.0,
            together: 0.25,
            outage: 0.2,
            class_weight: 3000.0,
        }
    }
}

impl FailureDetector for PhiAccrual {
    fn describe() -> PolicyDescription {
        let summary = "Suspects a session whose silence is unlikely for its kind, and holds whom \
                       the observer or the network may have silenced.";
        PolicyDescription::new("phi-accrual", env!("CARGO_PKG_VERSION"), summary)
            .needs("subjects.silent-ms")
            .needs("subjects.arrivals-n")
            .needs("subjects.arrivals-mean-ms")
            .needs("subjects.arrivals-sd-ms")
            .needs("subjects.arrivals-p99-ms")
            .needs("observer.since-elected-ms")
            .configured_by(schema())
    }

    fn configure(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let read: Self = configuration(bytes)?;
        read.check()
            .map_err(|what| Rejection::new(BAD_CONFIGURATION, what))?;
        *self = read;
        Ok(())
    }

    fn assess(&self, assessment: &Assessment) -> Vec<Verdict> {
        let classes = Classes::of(&assessment.subjects);
        let last = peers::last_intervals(assessment);
        let pairs = assessment.subjects.iter().zip(last);
        let late =
            |(subject, last_ms)| self.lateness(subject, last_ms, &assessment.observer, &classes);
        let lateness: Vec<Lateness> = pairs.map(late).collect();
        let is_late = lateness.iter().map(|of| of.is_late);
        let company = Company::of(assessment, is_late, self.together);
        let pairs = assessment.subjects.iter().zip(lateness);
        pairs
            .map(|(subject, lateness)| self.judge(subject, lateness, company.is_late(subject)))
            .collect()
    }
}

folkmoot_sdk::export_failure_detector!(PhiAccrual);

/// What a subject's silence amounts to.
#[derive(Clone, Copy, Debug)]
struct Lateness {
    phi: f64,
    /// If it is late alone.
    suspicion: f64,
    /// It is late, or came late a moment ago.
    is_late: bool,
    /// What the kernel granted it already for the observer's sake.
    granted_ms: f64,
}

impl PhiAccrual {
    fn lateness(
        &self,
        subject: &Subject,
        last_ms: f64,
        observer: &Observer,
        classes: &Classes,
    ) -> Lateness {
        let arrivals = classes.arrivals(subject, self.class_weight);
        let heard_ms = evidence::silence_ms(subject, observer, arrivals.mean_ms);
        let silence = Silence::of(&arrivals, subject.timeout_ms);
        let phi = silence.phi(heard_ms);
        let came_late =
            subject.silent_ms < peers::RETURN_MS && silence.phi(last_ms) >= peers::LATE_PHI;
        Lateness {
            phi,
            suspicion: silence.suspicion(heard_ms),
            is_late: phi >= peers::LATE_PHI || came_late,
            granted_ms: evidence::granted_ms(subject, observer),
        }
    }

    fn judge(&self, subject: &Subject, lateness: Lateness, together: bool) -> Verdict {
        let suspicion = match together {
            true => lateness.suspicion.min(self.outage_phi(subject)),
            false => lateness.suspicion,
        };
        let hold_ms = self.hold_ms(subject, lateness, together);
        let verdict = Verdict {
            suspicion,
            hold_ms,
            ..subject.verdict()
        };
        if suspicion < self.suspect_phi {
            return verdict;
        }
        let silent_ms = subject.silent_ms;
        let mut why = format!("silent for {silent_ms} ms, suspicion {suspicion:.1}");
        if together {
            why += ", together with others of its zone or member";
        }
        verdict.suspect(why)
    }

    /// How unlikely an outage of this length is, now that there is one.
    fn outage_phi(&self, subject: &Subject) -> f64 {
        let outage_ms = self.outage * subject.timeout_ms.max(1) as f64;
        subject.silent_ms as f64 / outage_ms * core::f64::consts::LOG10_E
    }

    /// For how long its expiry is put off from now on.
    fn hold_ms(&self, subject: &Subject, lateness: Lateness, together: bool) -> u64 {
        if subject.silent_ms.saturating_add(HOLD_MS) < subject.timeout_ms {
            return 0;
        }
        let timeout_ms = subject.timeout_ms as f64;
        let until_ms = match together {
            true => self.hold_together * timeout_ms,
            false if lateness.phi < self.expire_phi => self.hold * timeout_ms - lateness.granted_ms,
            false => 0.0,
        };
        let until_ms = until_ms as u64;
        let hold_ms = until_ms.saturating_sub(subject.silent_ms).min(HOLD_MS);
        hold_ms.max(subject.declared_pause_ms)
    }

    fn check(&self) -> Result<(), &'static str> {
        let positive = [
            self.suspect_phi,
            self.expire_phi,
            self.outage,
            self.class_weight,
        ];
        if positive.iter().any(|number| *number <= 0.0) {
            return Err("suspect-phi, expire-phi, outage and class-weight are above 0");
        }
        if self.hold < 1.0 || self.hold_together < self.hold {
            return Err("hold is 1 at least, hold-together no less than hold");
        }
        if self.together <= 0.0 || self.together > 1.0 {
            return Err("together is above 0 and at most 1");
        }
        Ok(())
    }
}

fn schema() -> serde_json::Value {
    let of = PhiAccrual::default();
    let number = |default: f64, description: &str| json!({"type": "number", "default": default, "description": description});
    json!({
        "type": "object",
        "properties": {
            "suspect-phi": number(of.suspect_phi, "the φ, of the mistakes that patience saves, at which a session is suspected"),
            "expire-phi": number(
                of.expire_phi,
                "the φ below which a session is held whose timeout is over",
            ),
            "hold": number(of.hold, "how long a session is held that is late alone, in timeouts"),
            "hold-together": number(
                of.hold_together,
                "how long a session is held that is late together with others, in timeouts",
            ),
            "together": number(
                of.together,
                "the share of a zone's or a member's sessions that is late when they are late together",
            ),
            "outage": number(
                of.outage,
                "how long an outage of a zone or member lasts on average, in timeouts",
            ),
            "class-weight": number(
                of.class_weight,
                "the intervals of its own after which a session counts as much as its class",
            ),
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    /// So many sessions of one zone with a regular past, silent for as long as given.
    fn silent_for(silences_ms: &[u64]) -> Assessment {
        let subject = |(key, silent_ms): (usize, &u64)| Subject {
            key: key as u64,
            touch: 9,
            class: "web".to_owned(),
            zone: Some(0),
            silent_ms: *silent_ms,
            timeout_ms: 10_000,
            ceiling_ms: 30_000,
            arrivals: Arrivals {
                n: 500,
                mean_ms: 2_000.0,
                sd_ms: 200.0,
                p99_ms: 2_300.0,
            },
            ..Subject::default()
        };
        Assessment {
            subjects: silences_ms.iter().enumerate().map(subject).collect(),
            observer: Observer {
                since_elected_ms: 1_000_000,
                since_stall_ms: u64::MAX,
                ..Observer::default()
            },
            ..Assessment::default()
        }
    }

    fn of_first(assessment: &Assessment) -> Verdict {
        PhiAccrual::default().assess(assessment).remove(0)
    }

    #[test]
    fn suspects_a_session_that_is_late_for_its_kind() {
        let mut silences_ms = [500; 20];
        assert!(!of_first(&silent_for(&silences_ms)).suspect);
        silences_ms[0] = 9_400;
        let verdict = of_first(&silent_for(&silences_ms));
        assert!(verdict.suspect, "{verdict:?}");
        assert_eq!((verdict.key, verdict.touch, verdict.hold_ms), (0, 9, 0));
    }

    #[test]
    fn holds_whoever_may_come_back_for_a_fifth_of_its_timeout_at_most() {
        let mut silences_ms = [500; 20];
        silences_ms[0] = 10_000;
        assert_eq!(of_first(&silent_for(&silences_ms)).hold_ms, HOLD_MS);
        silences_ms[0] = 12_000;
        assert_eq!(of_first(&silent_for(&silences_ms)).hold_ms, 0);
    }

    #[test]
    fn holds_a_zone_that_is_late_together() {
        let verdict = of_first(&silent_for(&[20_000; 20]));
        assert_eq!(verdict.hold_ms, HOLD_MS);
        assert!(verdict.why.contains("together"), "{verdict:?}");
        assert_eq!(of_first(&silent_for(&[30_000; 20])).hold_ms, 0);
    }

    #[test]
    fn of_two_that_have_just_joined_the_silent_one_is_suspected_before_its_session_ends() {
        let mut assessment = silent_for(&[9_500, 500]);
        for subject in &mut assessment.subjects {
            subject.arrivals = Arrivals {
                n: 2,
                mean_ms: 2_000.0,
                sd_ms: 5.0,
                p99_ms: 2_010.0,
            };
        }
        assert!(of_first(&assessment).suspect);
        assessment.subjects[0].silent_ms = 7_000;
        assert!(!of_first(&assessment).suspect);
    }

    #[test]
    fn those_who_are_left_of_a_member_that_fell_are_not_late_together() {
        let mut assessment = silent_for(&[500; 20]);
        for subject in assessment.subjects.iter_mut().take(4) {
            (subject.member, subject.silent_ms) = (2, 15_000);
        }
        assert_eq!(of_first(&assessment).hold_ms, HOLD_MS);
        assessment.observer.since_elected_ms = 15_000;
        assert_eq!(of_first(&assessment).hold_ms, 0);
    }

    #[test]
    fn the_last_to_return_are_not_alone() {
        let mut assessment = silent_for(&[500; 20]);
        assessment.subjects[0].silent_ms = 20_000;
        assert_eq!(of_first(&assessment).hold_ms, 0);
        let came_late = |subject| folkmoot_sdk::detector::Sample {
            subject,
            interval_ms: 19_500.0,
        };
        assessment.samples = (1..20).map(came_late).collect();
        assert_eq!(of_first(&assessment).hold_ms, HOLD_MS);
    }

    #[test]
    fn an_observer_that_stood_still_condemns_nobody() {
        let mut assessment = silent_for(&[6_500; 2]);
        assert!(of_first(&assessment).suspicion > 3.0);
        assessment.observer.lag_ms = 5_000;
        assert!(of_first(&assessment).suspicion < 0.1);
        assessment.observer.lag_ms = 0;
        assessment.observer.since_elected_ms = 6_500;
        assert!(of_first(&assessment).suspicion < 0.1);
    }

    #[test]
    fn a_declared_pause_is_granted() {
        let mut assessment = silent_for(&[12_500]);
        assessment.subjects[0].declared_pause_ms = 4_000;
        let verdict = of_first(&assessment);
        assert_eq!((verdict.suspect, verdict.hold_ms), (false, 4_000));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut policy = PhiAccrual::default();
        assert!(policy.configure(br#"{"suspect-phi": 5}"#).is_ok());
        for bad in [
            r#"{"suspect-phi": 0}"#,
            r#"{"hold": 0.9}"#,
            r#"{"hold-together": 1.1}"#,
            r#"{"together": 2}"#,
            r#"{"phi": 5}"#,
        ] {
            assert!(policy.configure(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    fn any_time_ms() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)]
    }

    fn any_subject() -> impl Strategy<Value = Subject> {
        let times = (any_time_ms(), any_time_ms(), any_time_ms());
        let arrivals = (any::<u32>(), 0.0..1e12_f64, 0.0..1e12_f64, 0.0..1e12_f64);
        (any::<u64>(), times, arrivals).prop_map(|(key, times, (n, mean_ms, sd_ms, p99_ms))| {
            Subject {
                key,
                silent_ms: times.0,
                timeout_ms: times.1,
                declared_pause_ms: times.2,
                arrivals: Arrivals {
                    n,
                    mean_ms,
                    sd_ms,
                    p99_ms,
                },
                ..Subject::default()
            }
        })
    }

    proptest! {
        #[test]
        fn whatever_a_kernel_shows_there_is_a_finite_verdict_on_each(
            subjects in proptest::collection::vec(any_subject(), 0..6),
            since_elected_ms in any_time_ms(),
            lag_ms in any_time_ms(),
            since_stall_ms in any_time_ms(),
        ) {
            let observer = Observer { since_elected_ms, lag_ms, since_stall_ms, ..Observer::default() };
            let assessment = Assessment { subjects, observer, ..Assessment::default() };
            let verdicts = PhiAccrual::default().assess(&assessment);
            prop_assert_eq!(verdicts.len(), assessment.subjects.len());
            for (verdict, subject) in verdicts.iter().zip(&assessment.subjects) {
                prop_assert!(verdict.suspicion.is_finite() && verdict.suspicion >= 0.0);
                prop_assert_eq!((verdict.key, verdict.touch), (subject.key, subject.touch));
            }
        }
    }
}
