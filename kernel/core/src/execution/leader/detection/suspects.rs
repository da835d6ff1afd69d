//! What is told of the detectors' suspicions in the records of groups' members. Each change is in the
//! log, so that it is told when it changes and has lasted, and to many at once (rule R41).

use folkmoot_proto::{Now, SessionId, Tick, Zxid};

use super::subjects::{Doubt, Subject};
use super::{Detection, Execution};
use crate::execution::leader::groups;

/// Between two transactions that tell of suspicions, in milliseconds.
const TELLING_MS: u64 = 200;
/// Suspicions that are told in one transaction; each is some 400 bytes in the log.
const TOLD_PER_TXN: usize = 128;
/// For how long a member must not be suspected before that is taken back, in milliseconds.
const CALM_MS_MIN: u64 = 2_000;
/// The same of a member that is suspected again and again: it doubles each time.
const CALM_MS_MAX: u64 = 64_000;
/// What is told of a member that is suspected no more.
const HEARD_AGAIN: &str = "heard-again";
/// Bytes of what a detector says that are told.
const WHY_BYTES_MAX: usize = 96;

/// A change to be told.
#[derive(Debug)]
struct Flip {
    session: SessionId,
    group: String,
    member: String,
    /// Why it is suspected; none if it is no more.
    why: Option<String>,
}

impl Doubt {
    /// It is suspected at `now`, after `touch`; `is_new` if that was not told before.
    fn suspected(&mut self, now: Tick, touch: u64, is_new: bool) {
        self.last = Some((now, touch));
        if is_new {
            let since = self.cleared_at.map(|at| now.millis_since(at));
            let is_again = since.is_some_and(|since_ms| since_ms < CALM_MS_MAX);
            let doubled = if is_again { self.calm_ms * 2 } else { 0 };
            self.calm_ms = doubled.clamp(CALM_MS_MIN, CALM_MS_MAX);
        }
    }

    /// Whether it has been calm for long enough.
    fn is_calm(&self, now: Tick) -> bool {
        let calm_ms = self.calm_ms.max(CALM_MS_MIN);
        self.last
            .is_none_or(|(at, _)| now.millis_since(at) >= calm_ms)
    }
}

impl Detection {
    /// What is to be told. Who is suspected and told so is noted as such.
    fn flips(&mut self, now: Tick) -> (Vec<Flip>, bool) {
        let (mut flips, mut any_told) = (Vec::new(), false);
        let mut doubted = Vec::new();
        for (session, subject) in self.subjects.iter() {
            let place = subject.place.as_ref().filter(|_| !subject.moved);
            let memberships = place.into_iter().flat_map(|place| &place.memberships);
            for of in memberships {
                any_told |= of.suspect;
                let detector = self.serves(&of.group);
                let said = detector.and_then(|detector| self.said(subject, detector, now));
                let why = said
                    .filter(|said| said.suspect)
                    .map(|said| said.why.clone());
                if why.is_some() && of.suspect {
                    doubted.push(session);
                }
                let is_over = || self.may_trust(subject, detector, now);
                let flips_now = match &why {
                    Some(_) => !of.suspect,
                    None => of.suspect && is_over(),
                };
                if flips_now && flips.len() < TOLD_PER_TXN {
                    flips.push(Flip {
                        session,
                        group: of.group.clone(),
                        member: of.member.clone(),
                        why,
                    });
                }
            }
        }
        for session in doubted {
            if let Some(subject) = self.subjects.get_mut(session) {
                subject.doubt.suspected(now, subject.touch, false);
            }
        }
        (flips, any_told)
    }

    /// Whether one that was told to be suspected, and is not suspected now, is to be trusted: it has
    /// been calm for a while, and was heard of since, or its detector says so; or nobody judges it.
    fn may_trust(&self, subject: &Subject, detector: Option<Zxid>, now: Tick) -> bool {
        let Some(detector) = detector.and_then(|zxid| self.detectors.get(&zxid)) else {
            return true;
        };
        let last_touch = subject.doubt.last.map(|(_, touch)| touch);
        let was_heard = last_touch.is_none_or(|touch| touch != subject.touch);
        let is_judged = detector.answered.is_some_and(|at| super::is_fresh(at, now));
        (was_heard || is_judged) && subject.doubt.is_calm(now)
    }

    /// It was told.
    fn told(&mut self, flip: &Flip, now: Tick) {
        let Some(subject) = self.subjects.get_mut(flip.session) else {
            return;
        };
        match flip.why {
            Some(_) => subject.doubt.suspected(now, subject.touch, true),
            None => subject.doubt.cleared_at = Some(now),
        }
        let place = subject.place.as_mut();
        let mut memberships = place.into_iter().flat_map(|place| &mut place.memberships);
        let membership = memberships.find(|of| of.group == flip.group && of.member == flip.member);
        if let Some(membership) = membership {
            membership.suspect = flip.why.is_some();
        }
    }
}

impl Execution {
    /// Tells in one transaction who is suspected and who is no more.
    pub(super) fn tell_suspects(&mut self, now: Now, all_read: bool) {
        let may_execute = self.may_execute();
        let Some(leader) = &mut self.leader else {
            return;
        };
        let detection = &mut leader.detection;
        if !may_execute || now.tick < detection.next_telling {
            return;
        }
        let (flips, any_told) = detection.flips(now.tick);
        detection.none_told = all_read && !any_told && flips.is_empty();
        if flips.is_empty() {
            return;
        }
        detection.next_telling = now.tick.plus_millis(TELLING_MS);
        let mut told = 0;
        self.kernel_txn(now, |draft| {
            draft.as_far_as_fits(&flips, |draft, flip| {
                let suspect = flip.why.is_some();
                let why = flip.why.as_deref().map(plain);
                let why = why.as_deref().unwrap_or(HEARD_AGAIN);
                let (group, member) = (&flip.group, &flip.member);
                groups::set_suspect(draft, (group, member), flip.session, suspect, why)?;
                told += 1;
                Ok(())
            })
        });
        if let Some(leader) = &mut self.leader {
            for flip in flips.iter().take(told) {
                leader.detection.told(flip, now.tick);
            }
        }
    }
}

/// A detector's reason as it is told: short, and of nothing that JSON would escape.
fn plain(why: &str) -> String {
    let mut plain = String::from("suspected");
    let kept = why
        .chars()
        .filter(|char| !char.is_control() && !"\"\\".contains(*char));
    for (place, char) in kept.enumerate() {
        if place == 0 {
            plain.push_str(": ");
        }
        if plain.len() + char.len_utf8() > WHY_BYTES_MAX {
            break;
        }
        plain.push(char);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_plain() {
        assert_eq!(plain(""), "suspected");
        assert_eq!(plain("φ 5.1\n\"\\"), "suspected: φ 5.1");
        let long = plain(&"φ".repeat(1000));
        assert!((WHY_BYTES_MAX - 1..=WHY_BYTES_MAX).contains(&long.len()));
    }

    #[test]
    fn who_is_suspected_again_and_again_must_be_calm_for_longer() {
        let at = |millis: u64| Tick(millis * 1000);
        let mut doubt = Doubt::default();
        doubt.suspected(at(0), 1, true);
        assert!(!doubt.is_calm(at(CALM_MS_MIN - 1)));
        assert!(doubt.is_calm(at(CALM_MS_MIN)));
        doubt.cleared_at = Some(at(2_000));
        doubt.suspected(at(3_000), 2, true);
        assert!(!doubt.is_calm(at(3_000 + 2 * CALM_MS_MIN - 1)));
        assert!(doubt.is_calm(at(3_000 + 2 * CALM_MS_MIN)));
        doubt.cleared_at = Some(at(7_000));
        doubt.suspected(at(7_000 + CALM_MS_MAX), 3, true);
        assert!(doubt.is_calm(at(7_000 + CALM_MS_MAX + CALM_MS_MIN)));
    }
}
