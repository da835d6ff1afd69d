//! A map as it is drawn, in the terminal or as SVG: members by zone as rows, partitions as columns.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot_client::{MapView, MemberInfo, MemberState, MovePhase, PartitionId, PartitionView};

/// A map, ready to be drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// What it is, in a line.
    pub(super) title: String,
    /// What an operator should know.
    pub(super) notes: Vec<String>,
    /// The members, by zone.
    pub(super) rows: Vec<Row>,
    /// The partitions of each column.
    pub(super) columns: Vec<(PartitionId, PartitionId)>,
    /// What is under way.
    pub(super) moves: Vec<Moving>,
}

/// A member.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) zone: String,
    pub(super) member: String,
    pub(super) state: String,
    pub(super) owns: usize,
    /// Replicas that it has beside those, and that are ready.
    pub(super) ready: usize,
    /// By column.
    pub(super) cells: Vec<Cell>,
}

/// What a member has of a partition, or of several in one column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    /// Nothing.
    #[default]
    Nothing,
    /// A replica that has not caught up.
    CatchesUp,
    /// A replica that could lead.
    Ready,
    /// It owned it, and is gone.
    Gone,
    /// It owns it, and is to let go.
    LetsGo,
    /// It owns it.
    Owns,
    /// It owns so many eighths of several, at least one.
    Eighths(u8),
}

/// A move under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moving {
    pub(super) partition: PartitionId,
    pub(super) from: Option<String>,
    pub(super) to: Vec<String>,
    pub(super) says: String,
    /// The rows of the owner and of who is to own it, and the column.
    pub(super) arrow: Option<(usize, usize, usize)>,
}

impl Moving {
    /// It in a line.
    pub(super) fn line(&self) -> String {
        let from = self.from.as_deref().unwrap_or("nobody");
        let (partition, to) = (self.partition, self.to.join(", "));
        format!("{partition} from {from} to {to}: {}", self.says)
    }
}

/// Partitions that share a column, so that as many columns are enough.
fn columns(partitions: &[PartitionView], most: usize) -> Vec<&[PartitionView]> {
    let each = partitions.len().div_ceil(most.max(1)).max(1);
    partitions.chunks(each).collect()
}

impl Picture {
    /// Draws `view` in at most `width` columns. `policy` names the policy, `age` says how old the
    /// view may be.
    pub(super) fn of(
        view: &MapView,
        members: &[MemberInfo],
        policy: &str,
        age: Duration,
        width: usize,
    ) -> Self {
        let columns = columns(&view.partitions, width);
        let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
        let mut known: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        for member in members {
            known.insert(&member.id, (&member.record.zone, state(member)));
        }
        for member in &view.members {
            // A member of the map that the group does not know: a pin may name one.
            let unknown = || (member.zone.as_str(), "unknown".to_owned());
            known.entry(&member.id).or_insert_with(unknown);
        }
        for (member, (zone, state)) in known {
            let row = Row {
                zone: zone.to_owned(),
                member: member.to_owned(),
                state,
                owns: 0,
                ready: 0,
                cells: vec![Cell::Nothing; columns.len()],
            };
            rows.insert((zone.to_owned(), member.to_owned()), row);
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        for row in &mut rows {
            row.fill(&columns);
        }
        Self {
            title: title(view, policy, age),
            notes: notes(view),
            moves: moves(&rows, &columns),
            columns: columns.iter().filter_map(|of| ends(of)).collect(),
            rows,
        }
    }

    /// Whether a column is one partition.
    pub(super) fn is_exact(&self) -> bool {
        self.columns.iter().all(|(first, last)| first == last)
    }
}

fn ends(partitions: &[PartitionView]) -> Option<(PartitionId, PartitionId)> {
    Some((partitions.first()?.partition, partitions.last()?.partition))
}

impl Row {
    fn fill(&mut self, columns: &[&[PartitionView]]) {
        for (cell, partitions) in self.cells.iter_mut().zip(columns) {
            let each = partitions.iter().map(|of| has(of, &self.member));
            let each: Vec<Cell> = each.collect();
            let owns = |cell: &&Cell| matches!(cell, Cell::Owns | Cell::LetsGo);
            let owned = each.iter().filter(owns).count();
            self.owns += owned;
            self.ready += each.iter().filter(|cell| **cell == Cell::Ready).count();
            *cell = match (owned, partitions.len()) {
                (owned, all) if owned > 0 && all > 1 => {
                    Cell::Eighths(u8::try_from((owned * 8).div_ceil(all)).unwrap_or(8))
                }
                _ => each.into_iter().max().unwrap_or_default(),
            };
        }
    }
}

fn has(partition: &PartitionView, member: &str) -> Cell {
    let owner = partition.owner.as_ref().filter(|of| of.member == member);
    if let Some(owner) = owner {
        let movement = partition.movement.as_ref();
        return match movement.map(|of| of.phase) {
            _ if !owner.lives => Cell::Gone,
            Some(MovePhase::Revoking) => Cell::LetsGo,
            _ => Cell::Owns,
        };
    }
    let mut replicas = partition.replicas.iter();
    match replicas.find(|of| of.member == member) {
        None => Cell::Nothing,
        Some(replica) if replica.lives && replica.ready => Cell::Ready,
        Some(replica) if replica.lives => Cell::CatchesUp,
        Some(_) => Cell::Gone,
    }
}

fn state(member: &MemberInfo) -> String {
    let record = &member.record;
    let name = record.state.name();
    match record.healthy || record.state == MemberState::Gone {
        true => name.to_owned(),
        false => format!("{name}, unhealthy"),
    }
}

fn title(view: &MapView, policy: &str, age: Duration) -> String {
    let partitions = view.partitions.len();
    let replicas = match view.config.replicas {
        1 => String::new(),
        replicas => format!(" x {replicas} replicas"),
    };
    let age = match age {
        Duration::ZERO => "current".to_owned(),
        age => format!("{:.1} s old", age.as_secs_f64()),
    };
    format!(
        "{}: {partitions} partitions{replicas}, {policy}, version {}, {age}",
        view.group, view.zxid
    )
}

fn notes(view: &MapView) -> Vec<String> {
    let mut notes = Vec::new();
    if view.frozen {
        notes.push("frozen: nothing is moved for balance".to_owned());
    }
    if let Some(breaker) = &view.breaker {
        notes.push(format!("the policy is not asked: {breaker}"));
    }
    let without: Vec<PartitionId> = view
        .partitions
        .iter()
        .filter(|of| of.live_owner().is_none())
        .map(|of| of.partition)
        .collect();
    if !without.is_empty() {
        notes.push(format!(
            "without an owner: {} ({})",
            without.len(),
            spans(&without)
        ));
    }
    notes
}

/// Partitions as N and N-M, the first ones where there are many.
pub(super) fn spans(partitions: &[PartitionId]) -> String {
    const SHOWN: usize = 12;
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for id in partitions.iter().map(|partition| partition.0) {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => spans.push((id, id)),
        }
    }
    let span = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let mut shown: Vec<String> = spans.iter().take(SHOWN).map(span).collect();
    if spans.len() > SHOWN {
        shown.push("...".to_owned());
    }
    shown.join(" ")
}

fn moves(rows: &[Row], columns: &[&[PartitionView]]) -> Vec<Moving> {
    let row_of = |member: &str| rows.iter().position(|row| row.member == member);
    let mut moves = Vec::new();
    for (column, partitions) in columns.iter().enumerate() {
        for partition in *partitions {
            let Some(movement) = &partition.movement else {
                continue;
            };
            let from = partition.live_owner().map(|owner| owner.member.clone());
            let phase = match movement.phase {
                MovePhase::Preparing => "preparing",
                MovePhase::Revoking => "its owner lets go",
            };
            let to = movement.target.first();
            let arrow = from
                .as_deref()
                .and_then(row_of)
                .zip(to.and_then(|to| row_of(to)));
            moves.push(Moving {
                partition: partition.partition,
                from,
                to: movement.target.clone(),
                says: format!("{phase}, {}, move {}", movement.reason.name(), movement.id),
                arrow: arrow
                    .filter(|(from, to)| from != to)
                    .map(|(from, to)| (from, to, column)),
            });
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use folkmoot_client::{
        LogTime, MapConfig, MapMember, MemberRecord, MemberSpec, MoveReason, MoveView, OwnerView,
        PartitionKey, ReplicaView, SessionId, WallTime, Zxid,
    };

    use super::super::{svg, terminal};
    use super::*;

    fn partition(id: u32, owner: Option<(&str, bool)>, replicas: &[(&str, bool)]) -> PartitionView {
        let replica = |(member, ready): &(&str, bool)| ReplicaView {
            member: (*member).to_owned(),
            ready: *ready,
            lives: true,
        };
        PartitionView {
            partition: PartitionId(id),
            key: PartitionKey::Name(format!("p{id}")),
            owner: owner.map(|(member, lives)| OwnerView {
                member: member.to_owned(),
                incarnation: Zxid(1),
                token: Zxid(2),
                lives,
            }),
            replicas: replicas.iter().map(replica).collect(),
            movement: None,
            since: LogTime(0),
            why: MoveReason::Recovery,
            weights: vec![1],
            move_cost: 1,
            pin: None,
            allowed: Vec::new(),
            frozen: false,
        }
    }

    fn view(partitions: Vec<PartitionView>) -> (MapView, Vec<MemberInfo>) {
        let info = |id: &str, zone: &str| {
            let mut spec = MemberSpec::at("a:1");
            spec.zone = zone.to_owned();
            MemberInfo {
                id: id.to_owned(),
                record: MemberRecord::joined(None, &spec, SessionId(1), Zxid(1), WallTime(1)),
                spec: Some(spec),
            }
        };
        let member = |id: &str| MapMember {
            id: id.to_owned(),
            address: String::new(),
            zone: String::new(),
            incarnation: None,
        };
        let view = MapView {
            group: "g<1>".to_owned(),
            zxid: Zxid(40),
            layout: Zxid(5),
            config: MapConfig::default(),
            frozen: true,
            breaker: None,
            members: vec![member("w1"), member("pinned")],
            partitions,
        };
        (view, vec![info("w1", "b"), info("w2", "a")])
    }

    fn moving() -> (MapView, Vec<MemberInfo>) {
        let mut revoked = partition(2, Some(("w1", true)), &[("w1", true), ("w2", false)]);
        revoked.movement = Some(MoveView {
            id: Zxid(30),
            phase: MovePhase::Revoking,
            target: vec!["w2".to_owned()],
            reason: MoveReason::Balance,
            deadline: LogTime(9),
        });
        view(vec![
            partition(0, Some(("w1", true)), &[("w1", true), ("w2", true)]),
            partition(1, Some(("w2", false)), &[("w2", true)]),
            revoked,
        ])
    }

    #[test]
    fn members_are_rows_by_zone_and_partitions_columns() {
        let (view, members) = moving();
        let picture = Picture::of(&view, &members, "p", Duration::from_millis(1500), 96);
        let rows: Vec<_> = picture
            .rows
            .iter()
            .map(|row| (&*row.zone, &*row.member))
            .collect();
        assert_eq!(rows, [("", "pinned"), ("a", "w2"), ("b", "w1")]);
        let owned: Vec<_> = picture
            .rows
            .iter()
            .map(|row| (row.owns, row.ready))
            .collect();
        assert_eq!(owned, [(0, 0), (0, 1), (2, 0)]);
        let drawn = terminal::draw(&picture);
        let expected = "\
g<1>: 3 partitions, p, version 40, 1.5 s old
  frozen: nothing is moved for balance
  without an owner: 1 (1)
  ZONE  MEMBER  STATE    OWNS  READY  PARTITIONS 0 TO 2
        pinned  unknown     0      0  ···
  a     w2      alive       0      1  ▒×░
  b     w1      alive       2      0  █·▓
  █ owns   ▓ is to let go   ▒ ready   ░ catches up   × is gone   · nothing
  2 from w1 to w2: its owner lets go, balance, move 30";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn many_partitions_share_columns() {
        let owner = |id: u32| if id < 6 { "w1" } else { "w2" };
        let partitions = (0..40).map(|id| partition(id, Some((owner(id), true)), &[]));
        let (view, members) = view(partitions.collect());
        let picture = Picture::of(&view, &members, "p", Duration::ZERO, 10);
        assert_eq!(picture.columns.len(), 10);
        let w1 = picture.rows.iter().find(|row| row.member == "w1").unwrap();
        assert_eq!(
            w1.cells[..3],
            [Cell::Eighths(8), Cell::Eighths(4), Cell::Nothing]
        );
        assert_eq!(w1.owns, 6);
        assert!(terminal::draw(&picture).contains("PARTITIONS 0 TO 39, ABOUT 4 A COLUMN"));
    }

    #[test]
    fn a_picture_is_well_formed_and_says_nothing_as_markup() {
        let (view, members) = moving();
        let picture = Picture::of(&view, &members, "p", Duration::ZERO, 96);
        let drawn = svg::draw(&picture);
        assert!(drawn.contains("g&lt;1&gt;"), "{drawn}");
        assert!(!drawn.contains("g<1>"), "{drawn}");
        assert_eq!(picture.moves[0].arrow, Some((2, 1, 2)));
        assert!(drawn.contains("<path"), "{drawn}");
        let (opened, closed) = (
            drawn.matches("<text").count(),
            drawn.matches("</text>").count(),
        );
        assert_eq!(opened, closed);
        assert!(drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn partitions_are_listed_as_spans() {
        let ids = |ids: &[u32]| ids.iter().copied().map(PartitionId).collect::<Vec<_>>();
        assert_eq!(spans(&ids(&[0, 1, 2, 7, 9, 10])), "0-2 7 9-10");
        let odd: Vec<u32> = (0..20).map(|n| 2 * n).collect();
        assert!(spans(&ids(&odd)).ends_with("22 ..."));
    }
}
