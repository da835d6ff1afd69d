//! How execution asks a policy, whoever runs it: tables in, tables out, off the hot path.
//!
//! A policy is pure, and the kernel never waits for one (rules R37, R43): a question goes out as an
//! action, its answer comes back as an input, and may come late or never. What an answer says is
//! checked by whoever asked.

mod schema;

use folkmoot_proto::Digest;

pub use schema::{Kind, ROWS_MAX, Schema};

/// Names a question; not used twice by one execution machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyCallId(pub u64);

/// The worlds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyWorld {
    /// Which members should have which partitions: `plan`.
    Rebalancer,
    /// Whom to suspect, and whose expiry to put off: `assess`.
    FailureDetector,
}

impl PolicyWorld {
    /// The world of a name in the WIT.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let worlds = [Self::Rebalancer, Self::FailureDetector];
        worlds.into_iter().find(|world| world.name() == name)
    }

    /// Its name in the WIT, and in the description of a component that is of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rebalancer => "rebalancer",
            Self::FailureDetector => "failure-detector",
        }
    }
}

/// A question to a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyCall {
    /// What is asked.
    pub world: PolicyWorld,
    /// The installed component that is asked.
    pub digest: Digest,
    /// What its `configure` gets before; an instance that has it already is not configured again.
    pub configuration: Vec<u8>,
    /// What it is asked about. None: it is only configured, and answers no tables.
    pub tables: Option<Vec<Table>>,
}

/// What came of a question.
pub type PolicyAnswer = Result<Vec<Table>, PolicyFailure>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {
    /// The policy said no: a result of its own.
    #[error("{code}: {message}")]
    Rejected {
        /// The policy's code.
        code: String,
        /// The policy's message.
        message: String,
    },
    /// The policy trapped, ran over a limit, or broke its contract.
    #[error("policy fault ({kind}): {message}")]
    Fault {
        /// As [`crate::plugin::FaultKind::name`].
        kind: String,
        /// What the host knows of it.
        message: String,
    },
    /// The component is not compiled here yet, or the host is busy. Ask again later.
    #[error("the policy is loading")]
    NotReady,
}

/// A table of named columns, as the WIT's `table`.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// In kebab-case.
    pub name: String,
    /// How many rows it has.
    pub rows: u32,
    /// Its columns, in no order that means anything.
    pub columns: Vec<Column>,
}

/// A column, as the WIT's.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// In kebab-case.
    pub name: String,
    /// Its cells.
    pub data: Cells,
}

/// The cells of a column, as the WIT's `data`.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Rows of other tables, small counts, flags.
    U32s(Vec<u32>),
    /// Positions, times in milliseconds, integer weights, stable hashes.
    U64s(Vec<u64>),
    /// Measurements. What the kernel gives is finite; what a policy gives is checked.
    F64s(Vec<f64>),
    /// Names and reasons.
    Strings(Vec<String>),
    /// Something that a later version knows.
    Other(Vec<u8>),
}

impl Cells {
    /// How many there are; bytes of `Other`.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U32s(cells) => cells.len(),
            Self::U64s(cells) => cells.len(),
            Self::F64s(cells) => cells.len(),
            Self::Strings(cells) => cells.len(),
            Self::Other(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// A table without columns.
    #[must_use]
    pub fn new(name: &str, rows: usize) -> Self {
        Self {
            name: name.to_owned(),
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            columns: Vec::new(),
        }
    }

    /// The table with one more column.
    #[must_use]
    pub fn with(mut self, name: &str, data: Cells) -> Self {
        self.add(name, data);
        self
    }

    /// Adds a column.
    pub(crate) fn add(&mut self, name: &str, data: Cells) {
        self.columns.push(Column {
            name: name.to_owned(),
            data,
        });
    }

    /// The cells of a column, if it is there.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Cells> {
        let column = self.columns.iter().find(|column| column.name == name);
        column.map(|column| &column.data)
    }
}
