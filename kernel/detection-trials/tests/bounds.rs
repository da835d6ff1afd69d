//! What the kernel guarantees, whatever the policy; and that the standard ones are worth having.

#![allow(clippy::unwrap_used, reason = "a test stops at its mistakes")]

use folkmoot_detection_trials::expiries;
use folkmoot_detection_trials::expiry::Expiries;
use folkmoot_detection_trials::report::Detectors;
use folkmoot_detection_trials::trace::Trace;
use folkmoot_detection_trials::worlds::{Set, worlds};
use folkmoot_fixed_timeout::FixedTimeout;
use folkmoot_phi_accrual::PhiAccrual;
use folkmoot_sdk::detector::prelude::*;

/// Holds everybody for ever.
#[derive(Default)]
struct HoldAll;

impl FailureDetector for HoldAll {
    fn describe() -> PolicyDescription {
        PolicyDescription::new("hold-all", "0.1.0", "Holds all.")
    }

    fn assess(&self, assessment: &Assessment) -> Vec<Verdict> {
        let hold = |subject: &Subject| Verdict {
            hold_ms: u64::MAX,
            ..subject.verdict()
        };
        assessment.subjects.iter().map(hold).collect()
    }
}

fn trace(name: &str, seed: u64) -> Trace {
    let mut worlds = worlds(Set::Judged).into_iter();
    worlds
        .find(|world| world.name() == name)
        .unwrap()
        .trace(seed, 1)
}

#[test]
fn no_policy_expires_anybody_out_of_bounds() {
    for name in ["observer-paused", "leader-change"] {
        let trace = trace(name, 5);
        let outcomes = [
            expiries(&trace, &FixedTimeout::default()),
            expiries(&trace, &PhiAccrual::default()),
            expiries(&trace, &HoldAll),
        ];
        for outcome in outcomes {
            assert!(outcome.crashes > 0, "{name}: {outcome:?}");
            let Expiries {
                before_floor,
                after_ceiling,
                by_sick_observer,
                ..
            } = outcome;
            assert_eq!(
                (before_floor, after_ceiling, by_sick_observer),
                (0, 0, 0),
                "{name}: {outcome:?}"
            );
        }
    }
}

#[test]
fn phi_accrual_is_faster_on_a_mixed_population_and_patient_with_a_zone() {
    let ratio = Detectors::default()
        .run(&trace("mixed", 5))
        .detection_ratio(0.3);
    assert!(ratio.is_some_and(|ratio| ratio < 0.85), "{ratio:?}");
    // The longest cut of this seed is shorter than the ceiling.
    let cut = trace("zone-cut", 2);
    let fixed = expiries(&cut, &FixedTimeout::default());
    let phi = expiries(&cut, &PhiAccrual::default());
    assert!(phi.mistaken * 5 <= fixed.mistaken, "{fixed:?} {phi:?}");
}
