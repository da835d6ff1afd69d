//! What a failure detector sees and says, as tables (`docs/failure-detection.md`).

use std::collections::BTreeMap;

use folkmoot_proto::{LogTime, SessionId, Tick};

use super::subjects::Subject;
use crate::detection::CEILING_TIMEOUTS;
use crate::policy::{Cells, Table};

/// No row.
const NONE: u32 = u32::MAX;

/// One row of `subjects`.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) session: SessionId,
    pub(super) subject: &'a Subject,
    /// When it was opened.
    pub(super) opened: LogTime,
    /// As `subjects.state`.
    pub(super) state: State,
    /// The member that its client is connected to.
    pub(super) member: u64,
}

/// What has been said of a session, as in `subjects.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Fine = 0,
    /// It is suspected.
    Suspected = 1,
    /// Its timeout is over, and its expiry is put off.
    Held = 2,
}

/// The leader itself, as in `observer`. Times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observer {
    pub(super) since_elected: u64,
    pub(super) lag: u64,
    pub(super) stall: u64,
    pub(super) since_stall: u64,
    pub(super) fsync: u64,
    pub(super) backlog: u64,
}

/// A row of `verdicts`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) session: SessionId,
    pub(super) touch: u64,
    pub(super) suspect: bool,
    pub(super) hold_ms: u64,
    pub(super) look_ms: u64,
    pub(super) why: String,
}

/// The tables that a detector gets at `now` on the leader's active clock and on the log's, `gone` being how many
/// expired of late in each zone.
pub(super) fn input(
    rows: &[Row<'_>],
    now: (Tick, LogTime),
    gone: &BTreeMap<&str, u32>,
    observer: Observer,
) -> Vec<Table> {
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    for (zone, count) in gone {
        zones.entry(zone).or_default().expired = *count;
    }
    for row in rows.iter().filter(|row| !row.zone().is_empty()) {
        let zone = zones.entry(row.zone()).or_default();
        zone.population += 1;
        zone.suspects += u32::from(row.state != State::Fine);
    }
    for (zone, number) in zones.values_mut().zip(0..) {
        zone.row = number;
    }
    vec![
        subject_table(rows, now, &zones),
        sample_table(rows),
        zone_table(&zones),
        observer_table(observer),
    ]
}

#[derive(Debug, Default)]
struct Zone {
    row: u32,
    population: u32,
    suspects: u32,
    expired: u32,
}

impl Row<'_> {
    fn zone(&self) -> &str {
        let place = self.subject.place.as_ref();
        place.map_or("", |place| &place.zone)
    }

    fn class(&self) -> &str {
        let place = self.subject.place.as_ref();
        place.map_or("", |place| &place.class)
    }
}

fn subject_table(
    rows: &[Row<'_>],
    (active, now): (Tick, LogTime),
    zones: &BTreeMap<&str, Zone>,
) -> Table {
    let u32s = |cell: &dyn Fn(&Row<'_>) -> u32| Cells::U32s(rows.iter().map(cell).collect());
    let u64s = |cell: &dyn Fn(&Row<'_>) -> u64| Cells::U64s(rows.iter().map(cell).collect());
    let timeout_ms = |row: &Row<'_>| u64::from(row.subject.timeout_ms);
    let figures: Vec<_> = rows
        .iter()
        .map(|row| row.subject.history.figures())
        .collect();
    let classes = rows.iter().map(|row| row.class().to_owned());
    let zone = |row: &Row<'_>| match row.zone() {
        "" => NONE,
        name => zones.get(name).map_or(NONE, |zone| zone.row),
    };
    // It counts from its last touch: what was announced is how long it will be silent.
    let pause_ms = |row: &Row<'_>| {
        let place = row.subject.place.as_ref();
        let announced = place.map_or(0, |place| place.pause_ms);
        announced.saturating_sub(row.subject.silent_ms(active))
    };
    let rtt_ms = |row: &Row<'_>| {
        let arrived = row.subject.arrived;
        arrived.map_or(0.0, |arrival| f64::from(arrival.rtt_micros) / 1000.0)
    };
    Table::new("subjects", rows.len())
        .with("key", u64s(&|row| row.session.0))
        .with("touch", u64s(&|row| row.subject.touch))
        .with("class", Cells::Strings(classes.collect()))
        .with("zone", u32s(&zone))
        .with("member", u64s(&|row| row.member))
        .with("age-ms", u64s(&|row| now.millis_since(row.opened)))
        .with("silent-ms", u64s(&|row| row.subject.silent_ms(active)))
        .with("timeout-ms", u64s(&timeout_ms))
        .with(
            "ceiling-ms",
            u64s(&|row| CEILING_TIMEOUTS * timeout_ms(row)),
        )
        .with("state", u32s(&|row| row.state as u32))
        .with(
            "arrivals-n",
            Cells::U32s(figures.iter().map(|of| of.n).collect()),
        )
        .with(
            "arrivals-mean-ms",
            Cells::F64s(figures.iter().map(|of| of.mean_ms).collect()),
        )
        .with(
            "arrivals-sd-ms",
            Cells::F64s(figures.iter().map(|of| of.sd_ms).collect()),
        )
        .with(
            "arrivals-p99-ms",
            Cells::F64s(figures.iter().map(|of| of.p99_ms).collect()),
        )
        .with("rtt-ms", Cells::F64s(rows.iter().map(rtt_ms).collect()))
        .with("connection", u32s(&|row| row.subject.connection as u32))
        .with("declared-pause-ms", u64s(&pause_ms))
}

fn sample_table(rows: &[Row<'_>]) -> Table {
    let (mut subjects, mut intervals) = (Vec::new(), Vec::new());
    for (row, number) in rows.iter().zip(0..) {
        for interval_ms in row.subject.history.last_ms() {
            subjects.push(number);
            intervals.push(interval_ms);
        }
    }
    Table::new("samples", subjects.len())
        .with("subject", Cells::U32s(subjects))
        .with("interval-ms", Cells::F64s(intervals))
}

fn zone_table(zones: &BTreeMap<&str, Zone>) -> Table {
    let names = zones.keys().map(|name| (*name).to_owned());
    let u32s = |cell: &dyn Fn(&Zone) -> u32| Cells::U32s(zones.values().map(cell).collect());
    Table::new("zones", zones.len())
        .with("name", Cells::Strings(names.collect()))
        .with("population", u32s(&|zone| zone.population))
        .with("suspects", u32s(&|zone| zone.suspects))
        .with("expired", u32s(&|zone| zone.expired))
}

fn observer_table(observer: Observer) -> Table {
    let one = |number| Cells::U64s(vec![number]);
    Table::new("observer", 1)
        .with("since-elected-ms", one(observer.since_elected))
        .with("lag-ms", one(observer.lag))
        .with("stall-ms", one(observer.stall))
        .with("since-stall-ms", one(observer.since_stall))
        .with("fsync-ms", one(observer.fsync))
        .with("backlog", one(observer.backlog))
}

/// What a detector answered.
///
/// # Errors
///
/// What is missing, or is not as it must be.
pub(super) fn read(answer: &[Table]) -> Result<Vec<Verdict>, String> {
    let verdicts = answer.iter().find(|table| table.name == "verdicts");
    let verdicts = verdicts.ok_or("there is no table verdicts")?;
    let key = u64s(verdicts, "key")?;
    let touch = u64s(verdicts, "touch")?;
    let hold_ms = u64s(verdicts, "hold-ms")?;
    let suspect = match verdicts.column("suspect") {
        Some(Cells::U32s(cells)) => cells,
        _ => return Err("verdicts.suspect is no column of u32s".to_owned()),
    };
    let look_ms = match verdicts.column("look-ms") {
        Some(_) => Some(u64s(verdicts, "look-ms")?),
        None => None,
    };
    let why = match verdicts.column("why") {
        Some(Cells::Strings(cells)) => Some(cells),
        Some(_) => return Err("verdicts.why is no column of strings".to_owned()),
        None => None,
    };
    let rows = verdicts.rows as usize;
    let lengths = [key.len(), touch.len(), hold_ms.len(), suspect.len()];
    if lengths.iter().any(|length| *length != rows) {
        return Err(format!(
            "verdicts has {rows} rows, and columns of other lengths"
        ));
    }
    let row = |row: usize| {
        Some(Verdict {
            session: SessionId(*key.get(row)?),
            touch: *touch.get(row)?,
            suspect: *suspect.get(row)? != 0,
            hold_ms: *hold_ms.get(row)?,
            look_ms: look_ms.and_then(|cells| cells.get(row)).map_or(0, |of| *of),
            why: why
                .and_then(|cells| cells.get(row))
                .cloned()
                .unwrap_or_default(),
        })
    };
    Ok((0..rows).filter_map(row).collect())
}

fn u64s<'a>(table: &'a Table, name: &str) -> Result<&'a [u64], String> {
    match table.column(name) {
        Some(Cells::U64s(cells)) => Ok(cells),
        _ => Err(format!("{}.{name} is no column of u64s", table.name)),
    }
}
