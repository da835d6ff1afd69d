//! What others tell of a subject: its class how it may behave, its zone and member whether it is
//! late alone.

use std::collections::BTreeMap;

use folkmoot_sdk::detector::{Arrivals, Assessment, Subject};

use crate::evidence;

/// A session of this φ is late: one in a hundred is at any time.
pub const LATE_PHI: f64 = 2.0;
/// A session that came late counts as late for so long, in milliseconds: those that an outage hid
/// come back one after the other, and the last ones are not alone.
pub const RETURN_MS: u64 = 2_000;
/// Fewer sessions than this are not late together.
const TOGETHER_MIN: u32 = 3;
/// What is assumed before anything was seen weighs as much as so many intervals.
const ASSUMED_WEIGHT: f64 = 10.0;
/// Intervals of its own after which a session without a class counts as much as all others of that
/// kind, who may be anybody.
const NO_CLASS_WEIGHT: f64 = 50.0;
/// Intervals after which a session's own mean counts as much as its class's. A mean is sure after a
/// few of them, a tail is not.
const MEAN_WEIGHT: f64 = 4.0;

/// How the sessions of each class behave.
#[derive(Debug)]
pub struct Classes<'a>(BTreeMap<&'a str, Sums>);

impl<'a> Classes<'a> {
    /// The classes of the subjects.
    #[must_use]
    pub fn of(subjects: &'a [Subject]) -> Self {
        let mut classes: BTreeMap<&str, Class> = BTreeMap::new();
        for subject in subjects {
            let class = classes.entry(&subject.class).or_default();
            class.add(subject);
        }
        let usual = |(name, class): (&'a str, Class)| (name, class.usual());
        Self(classes.into_iter().map(usual).collect())
    }

    /// The subject's figures, drawn to those of its class until it has intervals enough of its own;
    /// `n` is of all that they rest on.
    #[must_use]
    pub fn arrivals(&self, subject: &Subject, class_weight: f64) -> Arrivals {
        let own = &subject.arrivals;
        let class_weight = match subject.class.is_empty() {
            true => class_weight.min(NO_CLASS_WEIGHT),
            false => class_weight,
        };
        let class = self.0.get(subject.class.as_str()).copied();
        let class = class.unwrap_or_default().figures(subject.timeout_ms);
        let n = f64::from(own.n);
        let blend = |own, class, weight| (n * own + weight * class) / (n + weight);
        let mean_ms = blend(own.mean_ms, class.mean_ms, MEAN_WEIGHT);
        let above_ms = blend(own.p99_ms - own.mean_ms, class.above_ms, class_weight);
        Arrivals {
            n: class.n as u32,
            mean_ms,
            sd_ms: blend(own.sd_ms * own.sd_ms, class.variance, class_weight).sqrt(),
            p99_ms: mean_ms + above_ms,
        }
    }
}

/// The intervals of a class, all of them and by place.
#[derive(Debug, Default)]
struct Class {
    all: Sums,
    zones: BTreeMap<Option<u32>, Sums>,
    members: BTreeMap<u64, Sums>,
}

impl Class {
    fn add(&mut self, subject: &Subject) {
        self.all.add(&subject.arrivals);
        let zone = self.zones.entry(subject.zone).or_default();
        zone.add(&subject.arrivals);
        let member = self.members.entry(subject.member).or_default();
        member.add(&subject.arrivals);
    }

    /// The sums, with the variance of the usual place: what only the clients of one zone or member
    /// show is the doing of that.
    fn usual(&self) -> Sums {
        let variance =
            usual_variance(self.zones.values()).min(usual_variance(self.members.values()));
        Sums {
            variance: self.all.n * variance,
            ..self.all
        }
    }
}

/// The median of the places' variances, the lower of two.
fn usual_variance<'a>(places: impl Iterator<Item = &'a Sums>) -> f64 {
    let seen = places.filter(|sums| sums.n > 0.0);
    let mut variances: Vec<f64> = seen.map(|sums| sums.variance / sums.n).collect();
    variances.sort_by(f64::total_cmp);
    let middle = variances.len().saturating_sub(1) / 2;
    variances.get(middle).copied().unwrap_or(0.0)
}

/// Sums over the intervals of a class.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n: f64,
    mean_ms: f64,
    above_ms: f64,
    variance: f64,
}

impl Sums {
    fn add(&mut self, arrivals: &Arrivals) {
        let n = f64::from(arrivals.n);
        self.n += n;
        self.mean_ms += n * arrivals.mean_ms;
        self.above_ms += n * (arrivals.p99_ms - arrivals.mean_ms);
        self.variance += n * arrivals.sd_ms * arrivals.sd_ms;
    }

    /// Means over the intervals, and over what is assumed: that a client touches five times in its
    /// timeout, as Folkmoot's do, and may be late by a quarter of an interval.
    fn figures(&self, timeout_ms: u64) -> Self {
        let n = self.n + ASSUMED_WEIGHT;
        let interval_ms = timeout_ms as f64 / 5.0;
        let late_ms = interval_ms / 4.0;
        Self {
            n,
            mean_ms: (self.mean_ms + ASSUMED_WEIGHT * interval_ms) / n,
            above_ms: (self.above_ms + ASSUMED_WEIGHT * late_ms) / n,
            variance: self.variance / n,
        }
    }
}

/// The last interval of each subject between two touches, in milliseconds; 0 where it is not known.
#[must_use]
pub fn last_intervals(assessment: &Assessment) -> Vec<f64> {
    let mut last = vec![0.0; assessment.subjects.len()];
    for sample in &assessment.samples {
        if let Some(last) = last.get_mut(sample.subject as usize) {
            *last = sample.interval_ms;
        }
    }
    last
}

/// Which zones and members have sessions that are late together.
#[derive(Debug)]
pub struct Company {
    zones: BTreeMap<u32, Count>,
    members: BTreeMap<u64, Count>,
    share: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    late: u32,
    all: u32,
}

impl Company {
    /// Counts who is late, `is_late` saying it of each subject: together are those of which a
    /// `share` is.
    #[must_use]
    pub fn of(assessment: &Assessment, is_late: impl Iterator<Item = bool>, share: f64) -> Self {
        let (mut zones, mut members) = (BTreeMap::new(), BTreeMap::new());
        for (subject, is_late) in assessment.subjects.iter().zip(is_late) {
            if let Some(zone) = subject.zone {
                count(zones.entry(zone).or_default(), is_late);
            }
            // Of a member that fell with its leadership only those are left who did not go elsewhere.
            if !evidence::is_unheard(subject, &assessment.observer) {
                count(members.entry(subject.member).or_default(), is_late);
            }
        }
        Self {
            zones,
            members,
            share,
        }
    }

    /// Whether so many around the subject are late that they have one cause.
    #[must_use]
    pub fn is_late(&self, subject: &Subject) -> bool {
        let zone = subject.zone.and_then(|zone| self.zones.get(&zone));
        let around = [zone, self.members.get(&subject.member)];
        around.into_iter().flatten().any(|count| {
            let least = (self.share * f64::from(count.all)).ceil() as u32;
            count.late >= least.max(TOGETHER_MIN)
        })
    }
}

fn count(count: &mut Count, is_late: bool) {
    count.all += 1;
    count.late += u32::from(is_late);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions of one class in nine places, with a deviation for each zone and member.
    fn with(sd_ms: impl Fn(u32, u64) -> f64) -> Vec<Subject> {
        let places = (0..3).flat_map(|zone| (0..3).map(move |member| (zone, member)));
        let subject = |(zone, member)| Subject {
            zone: Some(zone),
            member,
            class: "web".to_owned(),
            timeout_ms: 10_000,
            arrivals: Arrivals {
                n: 500,
                mean_ms: 2_000.0,
                sd_ms: sd_ms(zone, member),
                p99_ms: 2_010.0,
            },
            ..Subject::default()
        };
        places.map(subject).collect()
    }

    fn class_sd_ms(subjects: &[Subject]) -> f64 {
        let newcomer = Subject {
            class: "web".to_owned(),
            timeout_ms: 10_000,
            ..Subject::default()
        };
        let classes = Classes::of(subjects);
        classes.arrivals(&newcomer, 3_000.0).sd_ms
    }

    #[test]
    fn what_befell_one_zone_or_member_says_nothing_of_the_class() {
        let calm = class_sd_ms(&with(|_, _| 10.0));
        assert!((9.0..11.0).contains(&calm), "{calm}");
        assert_eq!(
            class_sd_ms(&with(|zone, _| [10.0, 400.0, 10.0][zone as usize])),
            calm
        );
        assert_eq!(
            class_sd_ms(&with(|_, member| [300.0, 10.0, 10.0][member as usize])),
            calm
        );
        let pausing = class_sd_ms(&with(|_, _| 200.0));
        assert!(pausing > 190.0, "{pausing}");
    }
}
