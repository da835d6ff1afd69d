//! The tables that the kernel gives policies and takes of them: `docs/plugins/policies.md` and
//! `docs/failure-detection.md` say what each column means. A name never changes its type.

use super::{Cells, PolicyWorld, Table};

/// Tables that a policy may give.
const TABLES_MAX: usize = 16;
/// Columns of a table that a policy gives.
const COLUMNS_MAX: usize = 64;
/// Rows of a table that a policy gives: a million partitions.
pub const ROWS_MAX: u32 = 1_000_000;

/// The type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Cells::U32s`].
    U32,
    /// [`Cells::U64s`].
    U64,
    /// [`Cells::F64s`].
    F64,
    /// [`Cells::Strings`].
    Text,
}

/// A table with all columns that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The table.
    pub table: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, Kind)],
}

use Kind::{F64, Text, U32, U64};

const REBALANCER_INPUT: [Schema; 6] = [
    Schema {
        table: "partitions",
        columns: &[
            ("id", U64),
            ("key", U64),
            ("replicas", U32),
            ("weight", U64),
            ("weight-2", U64),
            ("weight-3", U64),
            ("weight-4", U64),
            ("load", F64),
            ("load-age", U64),
            ("move-cost", U64),
            ("idle", U64),
            ("pin", U32),
            ("affinity", U32),
            ("flags", U32),
        ],
    },
    Schema {
        table: "replicas",
        columns: &[
            ("partition", U32),
            ("member", U32),
            ("role", U32),
            ("ready", U32),
        ],
    },
    Schema {
        table: "members",
        columns: &[
            ("name", Text),
            ("key", U64),
            ("live", U32),
            ("since", U64),
            ("capacity", U64),
            ("capacity-2", U64),
            ("capacity-3", U64),
            ("capacity-4", U64),
            ("topology", Text),
            ("intent", U32),
            ("max", U32),
        ],
    },
    Schema {
        table: "allowed",
        columns: &[("partition", U32), ("member", U32)],
    },
    Schema {
        table: "moves",
        columns: &[
            ("id", U64),
            ("partition", U32),
            ("from", U32),
            ("to", U32),
            ("state", U32),
        ],
    },
    Schema {
        table: "request",
        columns: &[
            ("trigger", Text),
            ("mode", U32),
            ("budget", U32),
            ("seed", U64),
            ("now", U64),
        ],
    },
];

const REBALANCER_OUTPUT: [Schema; 5] = [
    Schema {
        table: "assign",
        columns: &[
            ("partition", U32),
            ("members", U32),
            ("members.offsets", U32),
            ("priority", U32),
            ("reason", U32),
        ],
    },
    Schema {
        table: "unplaced",
        columns: &[("partition", U32), ("missing", U32), ("reason", U32)],
    },
    Schema {
        table: "reasons",
        columns: &[("text", Text)],
    },
    Schema {
        table: "scores",
        columns: &[("name", Text), ("before", F64), ("after", F64)],
    },
    Schema {
        table: "again",
        columns: &[("after", U64)],
    },
];

const DETECTOR_INPUT: [Schema; 4] = [
    Schema {
        table: "subjects",
        columns: &[
            ("key", U64),
            ("touch", U64),
            ("class", Text),
            ("zone", U32),
            ("member", U64),
            ("age-ms", U64),
            ("silent-ms", U64),
            ("timeout-ms", U64),
            ("ceiling-ms", U64),
            ("state", U32),
            ("arrivals-n", U32),
            ("arrivals-mean-ms", F64),
            ("arrivals-sd-ms", F64),
            ("arrivals-p99-ms", F64),
            ("rtt-ms", F64),
            ("connection", U32),
            ("declared-pause-ms", U64),
        ],
    },
    Schema {
        table: "samples",
        columns: &[("subject", U32), ("interval-ms", F64)],
    },
    Schema {
        table: "zones",
        columns: &[
            ("name", Text),
            ("population", U32),
            ("suspects", U32),
            ("expired", U32),
        ],
    },
    Schema {
        table: "observer",
        columns: &[
            ("since-elected-ms", U64),
            ("lag-ms", U64),
            ("stall-ms", U64),
            ("since-stall-ms", U64),
            ("fsync-ms", U64),
            ("backlog", U64),
        ],
    },
];

const DETECTOR_OUTPUT: [Schema; 1] = [Schema {
    table: "verdicts",
    columns: &[
        ("key", U64),
        ("touch", U64),
        ("suspicion", F64),
        ("suspect", U32),
        ("hold-ms", U64),
        ("look-ms", U64),
        ("why", Text),
    ],
}];

impl PolicyWorld {
    /// The tables that such a policy is given. A column that is listed may be left out where the
    /// kernel knows nothing to put in it.
    #[must_use]
    pub const fn input(self) -> &'static [Schema] {
        match self {
            Self::Rebalancer => &REBALANCER_INPUT,
            Self::FailureDetector => &DETECTOR_INPUT,
        }
    }

    /// The tables that such a policy may give.
    #[must_use]
    pub const fn output(self) -> &'static [Schema] {
        match self {
            Self::Rebalancer => &REBALANCER_OUTPUT,
            Self::FailureDetector => &DETECTOR_OUTPUT,
        }
    }

    /// Whether the kernel has a column, `table.column`, to give to such a policy.
    #[must_use]
    pub fn has_column(self, column: &str) -> bool {
        let Some((table, column)) = column.split_once('.') else {
            return false;
        };
        kind_of(self.input(), table, column).is_some()
    }

    /// Checks what such a policy gave, whoever ran it: how much it is, that no table or column is
    /// there twice, that columns have as many cells as their tables have rows, that those known
    /// here are of their type, and that numbers are finite. What the cells mean is for whoever
    /// asked.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in words.
    pub fn check_output(self, tables: &[Table]) -> Result<(), String> {
        if tables.len() > TABLES_MAX {
            let count = tables.len();
            return Err(format!("{count} tables, allowed are {TABLES_MAX}"));
        }
        for (place, table) in tables.iter().enumerate() {
            let before = tables.iter().take(place);
            if before.clone().any(|other| other.name == table.name) {
                return Err(format!("the table {} twice", table.name));
            }
            check_table(self.output(), table)?;
        }
        Ok(())
    }
}

fn check_table(schemas: &[Schema], table: &Table) -> Result<(), String> {
    let name = &table.name;
    if table.rows > ROWS_MAX {
        let rows = table.rows;
        return Err(format!(
            "the table {name} has {rows} rows, allowed are {ROWS_MAX}"
        ));
    }
    if table.columns.len() > COLUMNS_MAX {
        let count = table.columns.len();
        return Err(format!(
            "the table {name} has {count} columns, allowed are {COLUMNS_MAX}"
        ));
    }
    for (place, column) in table.columns.iter().enumerate() {
        let before = &mut table.columns.iter().take(place);
        if before.any(|other| other.name == column.name) {
            return Err(format!("the column {name}.{} twice", column.name));
        }
        check_column(schemas, table, &column.name, &column.data)
            .map_err(|reason| format!("the column {name}.{} {reason}", column.name))?;
    }
    Ok(())
}

fn check_column(
    schemas: &[Schema],
    table: &Table,
    name: &str,
    cells: &Cells,
) -> Result<(), String> {
    let Some(kind) = cells.kind() else {
        // What is not known here is ignored.
        return Ok(());
    };
    if let Some(known) = kind_of(schemas, &table.name, name)
        && known != kind
    {
        return Err(format!("has {kind:?} cells, not {known:?}"));
    }
    if let Cells::F64s(numbers) = cells
        && !numbers.iter().all(|number| number.is_finite())
    {
        return Err("has a number that is not finite".to_owned());
    }
    let rows = table.rows as usize;
    let expected = if let Some(of) = name.strip_suffix(".offsets") {
        let listed = table.column(of).map_or(0, Cells::len);
        check_offsets(cells, listed)?;
        rows + 1
    } else if table.column(&format!("{name}.offsets")).is_some() {
        // As many as the offsets say, which are checked as a column of their own.
        cells.len()
    } else {
        rows
    };
    if cells.len() == expected {
        return Ok(());
    }
    Err(format!("has {} cells, not {expected}", cells.len()))
}

/// Offsets begin at 0, never go back, and end with the cells that they are of.
fn check_offsets(cells: &Cells, listed: usize) -> Result<(), String> {
    let Cells::U32s(offsets) = cells else {
        return Err("has no U32 cells".to_owned());
    };
    let ends = |of: Option<&u32>| of.map(|offset| *offset as usize);
    if ends(offsets.first()) == Some(0)
        && ends(offsets.last()) == Some(listed)
        && offsets.is_sorted()
    {
        return Ok(());
    }
    Err(format!("does not divide {listed} cells into lists"))
}

fn kind_of(schemas: &[Schema], table: &str, column: &str) -> Option<Kind> {
    let schema = schemas.iter().find(|schema| schema.table == table)?;
    let known = schema.columns.iter().find(|(name, _)| *name == column)?;
    Some(known.1)
}

impl Cells {
    /// The type of the cells; none of `Other`.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::U32s(_) => Some(Kind::U32),
            Self::U64s(_) => Some(Kind::U64),
            Self::F64s(_) => Some(Kind::F64),
            Self::Strings(_) => Some(Kind::Text),
            Self::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: PolicyWorld = PolicyWorld::Rebalancer;

    fn assign(offsets: Vec<u32>) -> Table {
        Table::new("assign", 2)
            .with("partition", Cells::U32s(vec![0, 1]))
            .with("members", Cells::U32s(vec![2, 1, 0]))
            .with("members.offsets", Cells::U32s(offsets))
    }

    #[track_caller]
    fn refused(table: Table, words: &str) {
        let refused = WORLD.check_output(&[table]).expect_err(words);
        assert!(refused.contains(words), "{refused}");
    }

    #[test]
    fn what_is_well_formed_passes() {
        let reasons = Table::new("reasons", 1)
            .with("text", Cells::Strings(vec!["because".to_owned()]))
            .with("of-a-later-version", Cells::Other(vec![1, 2, 3]));
        let later = Table::new("of-a-later-version", 0);
        let given = [assign(vec![0, 2, 3]), reasons, later];
        assert_eq!(WORLD.check_output(&given), Ok(()));
        assert_eq!(WORLD.check_output(&[]), Ok(()));
    }

    #[test]
    fn columns_have_a_cell_for_each_row() {
        for cells in [1, 3] {
            let given = Table::new("assign", 2).with("partition", Cells::U32s(vec![0; cells]));
            refused(given, "assign.partition has");
        }
    }

    #[test]
    fn offsets_divide_their_cells() {
        for offsets in [vec![0, 2], vec![0, 2, 2], vec![1, 2, 3], vec![0, 4, 3]] {
            refused(assign(offsets), "assign.members.offsets");
        }
        let wide = Table::new("assign", 0)
            .with("members", Cells::U32s(vec![]))
            .with("members.offsets", Cells::U64s(vec![0]));
        refused(wide, "has U64 cells, not U32");
    }

    #[test]
    fn a_name_has_one_type() {
        let given = Table::new("again", 1).with("after", Cells::F64s(vec![1.0]));
        refused(given, "again.after has F64 cells, not U64");
    }

    #[test]
    fn numbers_are_finite() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let given = Table::new("scores", 1).with("before", Cells::F64s(vec![number]));
            refused(given, "not finite");
        }
    }

    #[test]
    fn nothing_is_there_twice() {
        let table = || Table::new("later", 0);
        let refused_tables = WORLD.check_output(&[table(), table()]);
        assert_eq!(refused_tables, Err("the table later twice".to_owned()));
        let column = || Cells::U32s(vec![]);
        refused(
            table().with("a", column()).with("a", column()),
            "later.a twice",
        );
    }

    #[test]
    fn limits_hold_at_the_cap_and_one_above() {
        let tables = |count: usize| -> Vec<Table> {
            let table = |place| Table::new(&format!("later-{place}"), 0);
            (0..count).map(table).collect()
        };
        assert_eq!(WORLD.check_output(&tables(TABLES_MAX)), Ok(()));
        assert!(WORLD.check_output(&tables(TABLES_MAX + 1)).is_err());
        let columns = |count: usize| {
            let with = |table: Table, place| table.with(&format!("c{place}"), Cells::U32s(vec![]));
            (0..count).fold(Table::new("later", 0), with)
        };
        assert_eq!(WORLD.check_output(&[columns(COLUMNS_MAX)]), Ok(()));
        refused(columns(COLUMNS_MAX + 1), "65 columns");
        let rows = Table::new("later", ROWS_MAX as usize);
        assert_eq!(WORLD.check_output(&[rows]), Ok(()));
        refused(Table::new("later", ROWS_MAX as usize + 1), "1000001 rows");
    }

    #[test]
    fn the_kernel_knows_what_it_gives() {
        assert!(WORLD.has_column("partitions.load-age"));
        assert!(PolicyWorld::FailureDetector.has_column("observer.lag-ms"));
        for unknown in [
            "partitions",
            "partitions.",
            "observer.lag-ms",
            "assign.partition",
        ] {
            assert!(!WORLD.has_column(unknown), "{unknown}");
        }
    }
}
