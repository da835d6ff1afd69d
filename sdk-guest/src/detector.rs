//! Failure detection as a policy: whom to suspect, and whose expiry to put off.
//!
//! The kernel shows a policy its sessions as [`Subject`]s and itself as the [`Observer`]; the
//! policy answers with [`Verdict`]s. What it can do is bounded by the kernel: no session expires
//! before its timeout since its last accepted touch or the leader's election is over, none is held
//! past its ceiling, and a verdict is void once its session was heard of again.
//!
//! ```
//! use folkmoot_sdk::detector::prelude::*;
//!
//! /// Suspects whoever missed half of its timeout.
//! #[derive(Default)]
//! struct Half;
//!
//! impl FailureDetector for Half {
//!     fn describe() -> PolicyDescription {
//!         PolicyDescription::new("half", "0.1.0", "Suspects early.").needs("subjects.silent-ms")
//!     }
//!
//!     fn assess(&self, assessment: &Assessment) -> Vec<Verdict> {
//!         let silent = |of: &&Subject| of.silent_ms * 2 >= of.timeout_ms;
//!         let late = assessment.subjects.iter().filter(silent);
//!         late.map(|of| of.verdict().suspect("silent for half of its timeout")).collect()
//!     }
//! }
//! folkmoot_sdk::export_failure_detector!(Half);
//! ```

use crate::policy::{PolicyDescription, no_configuration};
use crate::rejection::Rejection;
use crate::table::{self, NONE, Table, TableError};

/// What a failure detector's file begins with.
pub mod prelude {
    pub use super::{
        Arrivals, Assessment, Connection, FailureDetector, Observer, State, Subject, Verdict,
    };
    pub use crate::policy::{BAD_CONFIGURATION, PolicyDescription, configuration};
    pub use crate::rejection::Rejection;
}

/// A policy for failure detection. The struct is its configuration; it keeps nothing between calls.
pub trait FailureDetector: Default + 'static {
    /// What the policy is. The same at each call.
    fn describe() -> PolicyDescription;

    /// Takes the configuration, empty where there is none: once for each instance, before anything
    /// else, and once when the policy is chosen. A policy that has none refuses any.
    ///
    /// # Errors
    ///
    /// A rejection refuses the policy.
    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        no_configuration(configuration)
    }

    /// Judges. The same assessment gives the same verdicts. A subject without a verdict is neither
    /// suspected nor held.
    fn assess(&self, assessment: &Assessment) -> Vec<Verdict>;
}

/// As the WIT's `assess`: tables in, tables out.
///
/// # Errors
///
/// Tables that are not as they must be, as a rejection.
pub fn assess_tables<D: FailureDetector>(
    policy: &D,
    input: &[Table],
) -> Result<Vec<Table>, Rejection> {
    let assessment = Assessment::from_tables(input)?;
    Ok(vec![Verdict::to_table(policy.assess(&assessment))])
}

/// What is to be judged: all sessions, at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// The sessions.
    pub subjects: Vec<Subject>,
    /// The last intervals between arrivals, a subject's one behind the other, oldest first. Empty
    /// where no policy asked for them.
    pub samples: Vec<Sample>,
    /// Where sessions' clients are.
    pub zones: Vec<Zone>,
    /// Who observes.
    pub observer: Observer,
}

/// A session, as its leader sees it. All times are in milliseconds, on a clock that leaves out the
/// stalls of the leader's own process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Who it is: the session's id.
    pub key: u64,
    /// Names its last touch; a verdict about another one is void.
    pub touch: u64,
    /// What kind of client it is, by its own declaration. May be empty.
    pub class: String,
    /// The row of its zone.
    pub zone: Option<u32>,
    /// The member that its client is connected to.
    pub member: u64,
    /// Since it was opened.
    pub age_ms: u64,
    /// Since its last touch arrived at a member, or since the leader was elected.
    pub silent_ms: u64,
    /// Its timeout: it never expires before.
    pub timeout_ms: u64,
    /// It is never held for longer than this.
    pub ceiling_ms: u64,
    /// What has been said of it.
    pub state: State,
    /// How its touches arrived.
    pub arrivals: Arrivals,
    /// The round trip to its client; 0 where it is not known.
    pub rtt_ms: f64,
    /// Its client's connection.
    pub connection: Connection,
    /// For how long its client has said that it will be silent, from now on.
    pub declared_pause_ms: u64,
}

/// What has been said of a session. The number is the cell of `subjects.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    #[default]
    Fine = 0,
    /// It is suspected.
    Suspected = 1,
    /// It is suspected, its timeout is over, and its expiry is put off.
    Held = 2,
}

/// A client's connection. The number is the cell of `subjects.connection`; what is not listed here
/// is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Not known.
    #[default]
    Unknown = 0,
    /// Open, as far as the member can tell.
    Open = 1,
    /// It ended without a word.
    Lost = 2,
    /// The client's process ended it.
    Closed = 3,
}

/// The intervals between the touches of a session, timed at the member that received them. Older
/// ones count less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrivals {
    /// Intervals that the other figures rest on.
    pub n: u32,
    /// Their mean.
    pub mean_ms: f64,
    /// Their standard deviation.
    pub sd_ms: f64,
    /// 99 of 100 were no longer.
    pub p99_ms: f64,
}

/// An interval between two touches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// The row of its subject.
    pub subject: u32,
    /// How long it was.
    pub interval_ms: f64,
}

/// A place that fails as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Sessions there.
    pub population: u32,
    /// Those of them that are suspected.
    pub suspects: u32,
    /// Those that expired in the last 60 s.
    pub expired: u32,
}

/// The health of the leader itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observer {
    /// Since it was elected and began to listen.
    pub since_elected_ms: u64,
    /// By how much its process ran late at worst, in the last 10 s.
    pub lag_ms: u64,
    /// How long its process last stood still.
    pub stall_ms: u64,
    /// Since then; `u64::MAX` if it never did.
    pub since_stall_ms: u64,
    /// How long its last sync took, or the one under way has taken.
    pub fsync_ms: u64,
    /// Requests and messages that wait to be taken in.
    pub backlog: u64,
}

/// What the policy thinks of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The session.
    pub key: u64,
    /// The touch that it is about.
    pub touch: u64,
    /// How suspicious its silence is, in the policy's own unit. It only grows with the silence.
    pub suspicion: f64,
    /// Keep new work away from it.
    pub suspect: bool,
    /// It is not to expire for so many milliseconds.
    pub hold_ms: u64,
    /// Look again after so many milliseconds at the latest; 0 leaves that to the kernel.
    pub look_ms: u64,
    /// Why, for people. Empty where there is nothing to say.
    pub why: String,
}

impl Subject {
    /// A verdict about this subject's last touch that says nothing.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict {
            key: self.key,
            touch: self.touch,
            ..Verdict::default()
        }
    }
}

impl Verdict {
    /// The same, and it is suspected.
    #[must_use]
    pub fn suspect(mut self, why: impl Into<String>) -> Self {
        self.suspect = true;
        self.why = why.into();
        self
    }

    /// The table `verdicts`.
    #[must_use]
    pub fn to_table(verdicts: Vec<Self>) -> Table {
        Table::new("verdicts", count(verdicts.len()))
            .with("key", of(&verdicts, |verdict| verdict.key))
            .with("touch", of(&verdicts, |verdict| verdict.touch))
            .with("suspicion", of(&verdicts, |verdict| verdict.suspicion))
            .with(
                "suspect",
                of(&verdicts, |verdict| u32::from(verdict.suspect)),
            )
            .with("hold-ms", of(&verdicts, |verdict| verdict.hold_ms))
            .with("look-ms", of(&verdicts, |verdict| verdict.look_ms))
            .with(
                "why",
                verdicts.into_iter().map(|verdict| verdict.why).collect(),
            )
    }

    /// What a policy answered.
    ///
    /// # Errors
    ///
    /// A table or column that is missing or is not as it must be. Those of reasons, and of when to
    /// look again, may be left out.
    pub fn from_tables(tables: &[Table]) -> Result<Vec<Self>, TableError> {
        let verdicts = table::table(tables, "verdicts")?;
        let key = verdicts.column::<u64>("key")?;
        let touch = verdicts.column::<u64>("touch")?;
        let suspicion = verdicts.column::<f64>("suspicion")?;
        let suspect = verdicts.column::<u32>("suspect")?;
        let hold_ms = verdicts.column::<u64>("hold-ms")?;
        let look_ms = verdicts.optional::<u64>("look-ms")?;
        let why = verdicts.optional::<String>("why")?;
        let row = |row| Self {
            key: cell(key, row),
            touch: cell(touch, row),
            suspicion: cell(suspicion, row),
            suspect: cell(suspect, row) != 0,
            hold_ms: cell(hold_ms, row),
            look_ms: optional(look_ms, row),
            why: optional(why, row),
        };
        Ok((0..verdicts.len()).map(row).collect())
    }
}

impl Assessment {
    /// The tables `subjects`, `samples`, `zones` and `observer`.
    #[must_use]
    pub fn to_tables(&self) -> Vec<Table> {
        vec![
            subjects_table(&self.subjects),
            Table::new("samples", count(self.samples.len()))
                .with("subject", of(&self.samples, |sample| sample.subject))
                .with(
                    "interval-ms",
                    of(&self.samples, |sample| sample.interval_ms),
                ),
            Table::new("zones", count(self.zones.len()))
                .with("name", of(&self.zones, |zone| zone.name.clone()))
                .with("population", of(&self.zones, |zone| zone.population))
                .with("suspects", of(&self.zones, |zone| zone.suspects))
                .with("expired", of(&self.zones, |zone| zone.expired)),
            observer_table(&self.observer),
        ]
    }

    /// What the kernel shows. Columns that it does not give have the value that says the least.
    ///
    /// # Errors
    ///
    /// A table or column that is missing or is not as it must be.
    pub fn from_tables(tables: &[Table]) -> Result<Self, TableError> {
        let zones = zones(table::table(tables, "zones")?)?;
        let subjects = subjects(table::table(tables, "subjects")?, count(zones.len()))?;
        let samples = samples(table::table(tables, "samples")?, count(subjects.len()))?;
        Ok(Self {
            subjects,
            samples,
            zones,
            observer: observer(table::table(tables, "observer")?)?,
        })
    }
}

fn subjects_table(subjects: &[Subject]) -> Table {
    Table::new("subjects", count(subjects.len()))
        .with("key", of(subjects, |of| of.key))
        .with("touch", of(subjects, |of| of.touch))
        .with("class", of(subjects, |of| of.class.clone()))
        .with("zone", of(subjects, |of| of.zone.unwrap_or(NONE)))
        .with("member", of(subjects, |of| of.member))
        .with("age-ms", of(subjects, |of| of.age_ms))
        .with("silent-ms", of(subjects, |of| of.silent_ms))
        .with("timeout-ms", of(subjects, |of| of.timeout_ms))
        .with("ceiling-ms", of(subjects, |of| of.ceiling_ms))
        .with("state", of(subjects, |of| of.state as u32))
        .with("arrivals-n", of(subjects, |of| of.arrivals.n))
        .with("arrivals-mean-ms", of(subjects, |of| of.arrivals.mean_ms))
        .with("arrivals-sd-ms", of(subjects, |of| of.arrivals.sd_ms))
        .with("arrivals-p99-ms", of(subjects, |of| of.arrivals.p99_ms))
        .with("rtt-ms", of(subjects, |of| of.rtt_ms))
        .with("connection", of(subjects, |of| of.connection as u32))
        .with("declared-pause-ms", of(subjects, |of| of.declared_pause_ms))
}

fn subjects(table: &Table, zones: u32) -> Result<Vec<Subject>, TableError> {
    let key = table.column::<u64>("key")?;
    let touch = table.column::<u64>("touch")?;
    let class = table.optional::<String>("class")?;
    let zone = table.rows_of("zone", zones, true)?;
    let member = table.optional::<u64>("member")?;
    let age_ms = table.optional::<u64>("age-ms")?;
    let silent_ms = table.column::<u64>("silent-ms")?;
    let timeout_ms = table.column::<u64>("timeout-ms")?;
    let ceiling_ms = table.column::<u64>("ceiling-ms")?;
    let state = table.optional::<u32>("state")?;
    let n = table.optional::<u32>("arrivals-n")?;
    let mean_ms = table.optional::<f64>("arrivals-mean-ms")?;
    let sd_ms = table.optional::<f64>("arrivals-sd-ms")?;
    let p99_ms = table.optional::<f64>("arrivals-p99-ms")?;
    let rtt_ms = table.optional::<f64>("rtt-ms")?;
    let connection = table.optional::<u32>("connection")?;
    let declared_pause_ms = table.optional::<u64>("declared-pause-ms")?;
    let row = |row| Subject {
        key: cell(key, row),
        touch: cell(touch, row),
        class: optional(class, row),
        zone: Some(cell(zone, row)).filter(|zone| *zone != NONE),
        member: optional(member, row),
        age_ms: optional(age_ms, row),
        silent_ms: cell(silent_ms, row),
        timeout_ms: cell(timeout_ms, row),
        ceiling_ms: cell(ceiling_ms, row),
        state: State::of(optional(state, row)),
        arrivals: Arrivals {
            n: optional(n, row),
            mean_ms: optional(mean_ms, row),
            sd_ms: optional(sd_ms, row),
            p99_ms: optional(p99_ms, row),
        },
        rtt_ms: optional(rtt_ms, row),
        connection: Connection::of(optional(connection, row)),
        declared_pause_ms: optional(declared_pause_ms, row),
    };
    Ok((0..table.len()).map(row).collect())
}

fn samples(table: &Table, subjects: u32) -> Result<Vec<Sample>, TableError> {
    let subject = table.rows_of("subject", subjects, false)?;
    let interval_ms = table.column::<f64>("interval-ms")?;
    let row = |row| Sample {
        subject: cell(subject, row),
        interval_ms: cell(interval_ms, row),
    };
    Ok((0..table.len()).map(row).collect())
}

fn zones(table: &Table) -> Result<Vec<Zone>, TableError> {
    let name = table.column::<String>("name")?;
    let population = table.optional::<u32>("population")?;
    let suspects = table.optional::<u32>("suspects")?;
    let expired = table.optional::<u32>("expired")?;
    let row = |row| Zone {
        name: cell(name, row),
        population: optional(population, row),
        suspects: optional(suspects, row),
        expired: optional(expired, row),
    };
    Ok((0..table.len()).map(row).collect())
}

fn observer_table(observer: &Observer) -> Table {
    Table::new("observer", 1)
        .with("since-elected-ms", vec![observer.since_elected_ms])
        .with("lag-ms", vec![observer.lag_ms])
        .with("stall-ms", vec![observer.stall_ms])
        .with("since-stall-ms", vec![observer.since_stall_ms])
        .with("fsync-ms", vec![observer.fsync_ms])
        .with("backlog", vec![observer.backlog])
}

fn observer(table: &Table) -> Result<Observer, TableError> {
    let since_stall_ms = table.optional::<u64>("since-stall-ms")?;
    Ok(Observer {
        since_elected_ms: cell(table.column("since-elected-ms")?, 0),
        lag_ms: optional(table.optional("lag-ms")?, 0),
        stall_ms: optional(table.optional("stall-ms")?, 0),
        since_stall_ms: since_stall_ms.map_or(u64::MAX, |column| cell(column, 0)),
        fsync_ms: optional(table.optional("fsync-ms")?, 0),
        backlog: optional(table.optional("backlog")?, 0),
    })
}

impl State {
    /// What a cell says; a state that is not known is one in which nothing was said.
    fn of(cell: u32) -> Self {
        match cell {
            1 => Self::Suspected,
            2 => Self::Held,
            _ => Self::Fine,
        }
    }
}

impl Connection {
    fn of(cell: u32) -> Self {
        match cell {
            1 => Self::Open,
            2 => Self::Lost,
            3 => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

fn of<R, C>(rows: &[R], cell: impl Fn(&R) -> C) -> Vec<C> {
    rows.iter().map(cell).collect()
}

/// The cell of a row. Columns have been checked to have all.
fn cell<C: Clone + Default>(column: &[C], row: usize) -> C {
    column.get(row).cloned().unwrap_or_default()
}

fn optional<C: Clone + Default>(column: Option<&[C]>, row: usize) -> C {
    column.map_or_else(C::default, |column| cell(column, row))
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assessment() -> Assessment {
        let subject = Subject {
            key: 7,
            touch: 3,
            class: "batch".to_owned(),
            zone: Some(1),
            member: 2,
            age_ms: 90_000,
            silent_ms: 4_000,
            timeout_ms: 10_000,
            ceiling_ms: 30_000,
            state: State::Suspected,
            arrivals: Arrivals {
                n: 40,
                mean_ms: 2_000.5,
                sd_ms: 12.5,
                p99_ms: 2_050.0,
            },
            rtt_ms: 1.5,
            connection: Connection::Open,
            declared_pause_ms: 100,
        };
        let nowhere = Subject {
            zone: None,
            ..subject.clone()
        };
        Assessment {
            subjects: vec![subject, nowhere],
            samples: vec![Sample {
                subject: 1,
                interval_ms: 2_001.0,
            }],
            zones: vec![Zone::default(), Zone::default()],
            observer: Observer {
                since_elected_ms: 1,
                lag_ms: 2,
                stall_ms: 3,
                since_stall_ms: 4,
                fsync_ms: 5,
                backlog: 6,
            },
        }
    }

    #[test]
    fn tables_carry_an_assessment() {
        let before = assessment();
        assert_eq!(Assessment::from_tables(&before.to_tables()), Ok(before));
    }

    #[test]
    fn tables_carry_verdicts() {
        let subject = &assessment().subjects[0];
        let held = Verdict {
            suspicion: 2.5,
            hold_ms: 700,
            look_ms: 100,
            ..subject.verdict()
        };
        let before = vec![held, subject.verdict().suspect("silent")];
        let table = Verdict::to_table(before.clone());
        assert_eq!(Verdict::from_tables(&[table]), Ok(before));
    }

    #[test]
    fn a_kernel_may_give_less_and_more() {
        let mut tables = assessment().to_tables();
        let given = [
            "key",
            "touch",
            "zone",
            "silent-ms",
            "timeout-ms",
            "ceiling-ms",
        ];
        tables[0]
            .columns
            .retain(|column| given.contains(&column.name.as_str()));
        tables[0] = tables[0]
            .clone()
            .with("from-a-later-kernel", vec![0_u32; 2]);
        let read = Assessment::from_tables(&tables).unwrap();
        assert_eq!(read.subjects[0].silent_ms, 4_000);
        assert_eq!(read.subjects[0].arrivals, Arrivals::default());
        assert_eq!(read.subjects[0].connection, Connection::Unknown);
    }

    #[test]
    fn a_zone_that_is_not_there_is_refused() {
        let mut of = assessment();
        of.zones.pop();
        let read = Assessment::from_tables(&of.to_tables());
        assert!(matches!(read, Err(TableError::NoRow { .. })), "{read:?}");
    }
}
