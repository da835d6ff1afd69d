//! How many sessions may expire at once. Clients seldom die together; what they have in common, or
//! the observer, fails more often than all of them.

use std::collections::VecDeque;

/// The timeouts after which a silent session expires even if many do at once.
pub const BRAKE_TIMEOUTS: u64 = 5;
/// The part of all sessions that may expire within [`WINDOW_MS`], in percent.
const SHARE_PERCENT: u64 = 20;
/// So many may, however few sessions there are.
const LEAST: u64 = 16;
/// In milliseconds: the default timeout of a client.
const WINDOW_MS: u64 = 10_000;
/// Sessions that expire in a millisecond, at most: a batch has room for others, and the log for
/// what they write.
const TURNS_PER_MS: u64 = 1;
/// Sessions that expire in one go.
const TURNS_MAX: u64 = 64;

/// The brake on mass expiry, and the limit on its rate. Times are milliseconds on a clock that leaves
/// out the stalls of the leader's own process.
#[derive(Debug, Default)]
pub struct Brake {
    /// When sessions expired, within the window.
    expired: VecDeque<u64>,
    turns: u64,
    turns_at: u64,
}

impl Brake {
    /// Whether so many expired of late, of a `population` that is there, that others are to wait.
    pub fn is_on(&mut self, now_ms: u64, population: u64) -> bool {
        while let Some(expired) = self.expired.front()
            && expired.saturating_add(WINDOW_MS) <= now_ms
        {
            self.expired.pop_front();
        }
        let most = (population.saturating_mul(SHARE_PERCENT) / 100).max(LEAST);
        self.expired.len() as u64 >= most
    }

    /// Whether one may expire now as far as the rate goes.
    pub fn has_turn(&mut self, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.turns_at);
        let more = since_ms.saturating_mul(TURNS_PER_MS);
        self.turns = self.turns.saturating_add(more).min(TURNS_MAX);
        self.turns_at = self.turns_at.max(now_ms);
        self.turns > 0
    }

    /// One has expired.
    pub fn expired(&mut self, now_ms: u64) {
        self.turns = self.turns.saturating_sub(1);
        self.expired.push_back(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many expire before the brake is on.
    fn at_once(brake: &mut Brake, now_ms: u64, population: u64) -> u64 {
        let mut left = population;
        while left > 0 && !brake.is_on(now_ms, left) {
            brake.expired(now_ms);
            left -= 1;
        }
        population - left
    }

    #[test]
    fn a_fifth_of_many_expires_in_ten_seconds() {
        let mut brake = Brake::default();
        // 20 % of those who are left then.
        assert_eq!(at_once(&mut brake, 5, 1_000), 166);
        assert!(brake.is_on(WINDOW_MS + 4, 834));
        assert!(!brake.is_on(WINDOW_MS + 5, 834));
    }

    #[test]
    fn a_few_always_may() {
        assert_eq!(at_once(&mut Brake::default(), 5, LEAST), LEAST);
        assert_eq!(at_once(&mut Brake::default(), 5, LEAST + 1), LEAST);
    }

    #[test]
    fn no_more_expire_in_a_second_than_a_thousand_and_a_burst() {
        let mut brake = Brake::default();
        let mut count = 0;
        for now_ms in 0..=1_000 {
            while brake.has_turn(now_ms) {
                brake.expired(now_ms);
                count += 1;
            }
        }
        assert_eq!(count, 1_000);
        assert!(brake.has_turn(10_000));
        (0..TURNS_MAX).for_each(|_| brake.expired(10_000));
        assert!(!brake.has_turn(10_000), "the burst is used up");
    }
}
