//! What goes wrong, and when: drawn from the seed as the world goes on. A world is first tried by
//! faults and then healed, and must make progress.

use folkmoot_proto::MemberId;

use crate::dice::Dice;
use crate::disk::CrashKind;
use crate::time::Moment;
use crate::wires::ClientId;

/// Something that goes wrong, or is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next fault is drawn.
    Next,
    Crash(MemberId, CrashKind),
    Start(MemberId),
    /// A process ends by itself, since its disk failed.
    End(MemberId),
    Wipe(MemberId),
    Rot(MemberId),
    Pause(MemberId),
    Resume(MemberId),
    Partition(Shape),
    Mend,
    BreakLink(MemberId, MemberId),
    /// A cut connection has been silent for so long that it is given up.
    GiveUp(MemberId, MemberId),
    Storm,
    StormEnds,
    SlowDisk(MemberId),
    FailSync(MemberId),
    FullDisk(MemberId),
    MendDisk(MemberId),
    StallExecution(MemberId, u64),
    JumpWallClock(MemberId, i64),
    Transfer(MemberId),
    PauseClient(ClientId),
    ResumeClient(ClientId),
    CrashClient(ClientId),
    MoveClient(ClientId),
    BlockClient(ClientId),
    /// What its session's streams carry to the client does not get through, while heartbeats do.
    StallClient(ClientId),
    /// Clients begin nothing new.
    Quiet,
    /// All faults end.
    Heal,
}

/// Which directions are blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing goes in or out.
    Isolate(MemberId),
    /// It hears and is not heard.
    Mute(MemberId),
    /// It is heard and does not hear.
    Deaf(MemberId),
    /// Two parts.
    Split(Vec<MemberId>, Vec<MemberId>),
    /// One member reaches all, the others reach only it.
    Bridge(MemberId),
    /// One pair can not talk to each other.
    Pair(MemberId, MemberId),
    /// One direction of one pair.
    OneWay(MemberId, MemberId),
}

impl Shape {
    /// The blocked directions among `members`.
    pub(crate) fn blocked(&self, members: &[MemberId]) -> Vec<(MemberId, MemberId)> {
        let all = members
            .iter()
            .flat_map(|from| members.iter().map(|to| (*from, *to)))
            .filter(|(from, to)| from != to);
        all.filter(|(from, to)| match self {
            Self::Isolate(cut) => from == cut || to == cut,
            Self::Mute(cut) => from == cut,
            Self::Deaf(cut) => to == cut,
            Self::Split(one, other) => {
                (one.contains(from) && other.contains(to))
                    || (other.contains(from) && one.contains(to))
            }
            Self::Bridge(hub) => from != hub && to != hub,
            Self::Pair(a, b) => (from, to) == (a, b) || (from, to) == (b, a),
            Self::OneWay(a, b) => (from, to) == (a, b),
        })
        .collect()
    }
}

/// What the fault schedule needs to know of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberView {
    pub(crate) id: MemberId,
    pub(crate) up: bool,
    pub(crate) leads: bool,
}

/// Draws faults.
#[derive(Debug)]
pub(crate) struct Schedule {
    dice: Dice,
    /// Typical microseconds between two faults.
    gap: u64,
    weights: [u64; 16],
    clients: u64,
    pub(crate) healed: bool,
}

impl Schedule {
    pub(crate) fn new(seed: u64, clients: usize) -> Self {
        let mut dice = Dice::new(seed, "faults");
        let mut weights = [20, 8, 20, 10, 4, 6, 2, 2, 6, 4, 3, 1, 14, 4, 10, 6];
        // Each world leaves some kinds out and has others more often.
        for weight in &mut weights {
            *weight *= dice.pick(&[0, 1, 1, 1, 4]).copied().unwrap_or(1);
        }
        weights[0] += 1;
        if clients == 0 {
            weights[12..].fill(0);
        }
        Self {
            gap: dice
                .pick(&[300_000, 800_000, 2_000_000])
                .copied()
                .unwrap_or(800_000),
            dice,
            weights,
            clients: clients as u64,
            healed: false,
        }
    }

    /// The time of the next fault.
    pub(crate) fn next_at(&mut self, now: Moment) -> Moment {
        now.plus_micros(self.dice.between(self.gap / 4, 2 * self.gap))
    }

    /// The next fault, and when it is mended, in microseconds from its beginning.
    pub(crate) fn draw(&mut self, members: &[MemberView]) -> Vec<(u64, Fault)> {
        let up: Vec<_> = members.iter().filter(|view| view.up).copied().collect();
        let Some(victim) = self.victim(&up) else {
            return Vec::new();
        };
        let id = victim.id;
        match self.dice.weighted(&self.weights.clone()) {
            0 => self.crash(id),
            1 => self.crash_many(&up),
            2 => self.partition(members, id),
            3 => self.pause(id),
            4 => match members.iter().find(|other| other.id != id) {
                Some(other) => vec![(0, Fault::BreakLink(id, other.id))],
                None => Vec::new(),
            },
            5 => self.for_a_while(Fault::SlowDisk(id), Fault::MendDisk(id), 3_000_000),
            6 => vec![(0, Fault::FailSync(id))],
            7 => self.for_a_while(Fault::FullDisk(id), Fault::MendDisk(id), 3_000_000),
            8 => vec![(
                0,
                Fault::StallExecution(id, self.dice.between(20_000, 1_500_000)),
            )],
            9 => {
                let day_ms = 86_400_000;
                let jump = self.dice.between(0, 2 * day_ms) as i64 - day_ms as i64;
                vec![(0, Fault::JumpWallClock(id, jump))]
            }
            10 => self.for_a_while(Fault::Storm, Fault::StormEnds, 4_000_000),
            11 => vec![(0, Fault::Transfer(id))],
            kind => self.client_fault(kind),
        }
    }

    fn client_fault(&mut self, kind: usize) -> Vec<(u64, Fault)> {
        let client = ClientId(self.dice.below(self.clients) as usize);
        match kind {
            12 => {
                let longest = self.dice.pick(&[200_000, 3_000_000, 9_000_000]).copied();
                let longest = longest.unwrap_or(3_000_000);
                self.for_a_while(
                    Fault::PauseClient(client),
                    Fault::ResumeClient(client),
                    longest,
                )
            }
            13 => vec![(0, Fault::CrashClient(client))],
            14 => vec![(0, Fault::MoveClient(client))],
            _ if self.dice.chance(500) => vec![(0, Fault::BlockClient(client))],
            _ => self.for_a_while(
                Fault::StallClient(client),
                Fault::MoveClient(client),
                12_000_000,
            ),
        }
    }

    /// Faults find the leader more often than chance would.
    fn victim(&mut self, up: &[MemberView]) -> Option<MemberView> {
        let leader = up.iter().find(|view| view.leads).copied();
        match self.dice.chance(400) {
            true => leader.or(self.dice.pick(up).copied()),
            false => self.dice.pick(up).copied(),
        }
    }

    fn crash(&mut self, id: MemberId) -> Vec<(u64, Fault)> {
        let down = self.dice.between(50_000, 4_000_000);
        let mut faults = vec![
            (0, Fault::Crash(id, self.crash_kind())),
            (down, Fault::Start(id)),
        ];
        match self.dice.below(100) {
            // While it is down its disk is damaged, or its folder emptied.
            0..8 => faults.insert(1, (down / 2, Fault::Rot(id))),
            8..12 => faults.insert(1, (down / 2, Fault::Wipe(id))),
            _ => {}
        }
        faults
    }

    fn crash_many(&mut self, up: &[MemberView]) -> Vec<(u64, Fault)> {
        let mut victims: Vec<_> = up.iter().map(|view| view.id).collect();
        self.dice.shuffle(&mut victims);
        victims.truncate(self.dice.between(1, up.len() as u64) as usize);
        let mut faults = Vec::new();
        for id in victims {
            let at = self.dice.between(0, 20_000);
            faults.push((at, Fault::Crash(id, self.crash_kind())));
            faults.push((at + self.dice.between(50_000, 2_000_000), Fault::Start(id)));
        }
        faults
    }

    fn crash_kind(&mut self) -> CrashKind {
        match self.dice.chance(500) {
            true => CrashKind::Process,
            false => CrashKind::Machine,
        }
    }

    fn partition(&mut self, members: &[MemberView], id: MemberId) -> Vec<(u64, Fault)> {
        let mut others: Vec<_> = members.iter().map(|view| view.id).collect();
        self.dice.shuffle(&mut others);
        let half = others.split_off(others.len() / 2);
        let other = half
            .iter()
            .chain(&others)
            .find(|other| **other != id)
            .copied();
        let Some(other) = other else {
            return Vec::new();
        };
        let shape = match self.dice.below(8) {
            0 | 1 => Shape::Isolate(id),
            2 => Shape::Mute(id),
            3 => Shape::Deaf(id),
            4 => Shape::Split(half, others),
            5 => Shape::Bridge(id),
            6 => Shape::Pair(id, other),
            _ => Shape::OneWay(id, other),
        };
        self.for_a_while(Fault::Partition(shape), Fault::Mend, 8_000_000)
    }

    fn pause(&mut self, id: MemberId) -> Vec<(u64, Fault)> {
        let longest = self.dice.pick(&[100_000, 1_000_000, 10_000_000]).copied();
        self.for_a_while(
            Fault::Pause(id),
            Fault::Resume(id),
            longest.unwrap_or(1_000_000),
        )
    }

    fn for_a_while(&mut self, begin: Fault, end: Fault, longest: u64) -> Vec<(u64, Fault)> {
        vec![(0, begin), (self.dice.between(longest / 20, longest), end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_block_what_they_say() {
        let members = [1, 2, 3].map(MemberId);
        let blocked = |shape: Shape| shape.blocked(&members).len();
        assert_eq!(blocked(Shape::Isolate(MemberId(1))), 4);
        assert_eq!(blocked(Shape::Mute(MemberId(1))), 2);
        assert_eq!(blocked(Shape::Bridge(MemberId(2))), 2);
        assert_eq!(blocked(Shape::OneWay(MemberId(1), MemberId(2))), 1);
        let split = Shape::Split(vec![MemberId(1)], vec![MemberId(2), MemberId(3)]);
        assert_eq!(split.blocked(&members).len(), 4);
    }
}
