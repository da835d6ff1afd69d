//! Tables of named columns: what policies take and give.
//!
//! The same types serve both sides: whoever runs a policy natively builds the tables that the
//! kernel would, and the component's glue makes them of the WIT's. A column is found by name and
//! type, and an error says which one was not there:
//!
//! ```
//! use folkmoot_sdk::table::{Table, TableError};
//!
//! let members = Table::new("members", 2)
//!     .with("name", vec!["a".to_owned(), "b".to_owned()])
//!     .with("load", vec![0.5, 1.5])
//!     .with_lists("tags", [vec![1_u32, 2], vec![]]);
//!
//! let loads: &[f64] = members.column("load")?;
//! assert_eq!(loads, [0.5, 1.5]);
//! assert_eq!(members.lists::<u32>("tags")?.of(0), [1, 2]);
//! assert!(members.optional::<u64>("since")?.is_none());
//! assert_eq!(
//!     members.column::<u64>("load").unwrap_err().to_string(),
//!     "column members.load has f64s, not u64s",
//! );
//! # Ok::<(), TableError>(())
//! ```

use core::fmt;

use crate::rejection::Rejection;

/// No row: what a column of rows of another table says where there is none.
pub const NONE: u32 = u32::MAX;

/// A table. As the WIT's.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// In kebab-case.
    pub name: String,
    /// How many rows it has.
    pub rows: u32,
    /// Its columns, in no order that means anything.
    pub columns: Vec<Column>,
}

/// A column. As the WIT's.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// In kebab-case.
    pub name: String,
    /// Its cells: one for each row, but in a column of lists.
    pub data: Data,
}

/// The cells of a column. As the WIT's.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Rows of other tables, small counts, flags.
    U32s(Vec<u32>),
    /// Positions, times in milliseconds, integer weights, stable hashes.
    U64s(Vec<u64>),
    /// Measurements, each finite.
    F64s(Vec<f64>),
    /// Names and reasons.
    Strings(Vec<String>),
    /// Something that a later version knows, as JSON.
    Other(Vec<u8>),
}

/// What a cell can be.
pub trait Cell: Sized {
    /// The name of such a column's type in the WIT.
    const KIND: &'static str;

    /// The cells, if they are of this type.
    fn cells(data: &Data) -> Option<&[Self]>;

    /// Cells of this type.
    fn data(cells: Vec<Self>) -> Data;

    /// Whether the cell may stand in a table.
    #[must_use]
    fn is_valid(&self) -> bool {
        true
    }
}

macro_rules! cell {
    ($cell:ty, $variant:ident, $kind:literal $(, $valid:expr)?) => {
        impl Cell for $cell {
            const KIND: &'static str = $kind;

            fn cells(data: &Data) -> Option<&[Self]> {
                match data {
                    Data::$variant(cells) => Some(cells),
                    _ => None,
                }
            }

            fn data(cells: Vec<Self>) -> Data {
                Data::$variant(cells)
            }

            $(fn is_valid(&self) -> bool {
                $valid(*self)
            })?
        }
    };
}

cell!(u32, U32s, "u32s");
cell!(u64, U64s, "u64s");
cell!(f64, F64s, "f64s", f64::is_finite);
cell!(String, Strings, "strings");

impl Data {
    /// The name of the type in the WIT.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U32s(_) => u32::KIND,
            Self::U64s(_) => u64::KIND,
            Self::F64s(_) => f64::KIND,
            Self::Strings(_) => String::KIND,
            Self::Other(_) => "other",
        }
    }
}

impl Table {
    /// A table without columns.
    #[must_use]
    pub fn new(name: impl Into<String>, rows: u32) -> Self {
        Self {
            name: name.into(),
            rows,
            columns: Vec::new(),
        }
    }

    /// The same with one column more. Its length is checked when it is read.
    #[must_use]
    pub fn with<C: Cell>(mut self, name: impl Into<String>, cells: Vec<C>) -> Self {
        self.columns.push(Column {
            name: name.into(),
            data: C::data(cells),
        });
        self
    }

    /// The same with one column of lists more, one list for each row: the WIT's pair of columns.
    #[must_use]
    pub fn with_lists<C: Cell>(
        self,
        name: impl Into<String>,
        lists: impl IntoIterator<Item = Vec<C>>,
    ) -> Self {
        let (mut cells, mut offsets) = (Vec::new(), vec![0]);
        for list in lists {
            cells.extend(list);
            offsets.push(u32::try_from(cells.len()).unwrap_or(NONE));
        }
        self.with_offsets(name, cells, offsets)
    }

    /// The same with one column of lists more, as the WIT has it: the lists one behind the other,
    /// and where each begins and the last one ends.
    #[must_use]
    pub fn with_offsets<C: Cell>(
        self,
        name: impl Into<String>,
        cells: Vec<C>,
        offsets: Vec<u32>,
    ) -> Self {
        let name = name.into();
        let offsets_name = format!("{name}.offsets");
        self.with(name, cells).with(offsets_name, offsets)
    }

    /// How many rows the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows as usize
    }

    /// Whether the table has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A column that must be there: one valid cell for each row.
    ///
    /// # Errors
    ///
    /// [`TableError::NoColumn`], [`TableError::Mistyped`], [`TableError::Length`],
    /// [`TableError::NotFinite`].
    pub fn column<C: Cell>(&self, name: &str) -> Result<&[C], TableError> {
        self.optional(name)?
            .ok_or_else(|| TableError::NoColumn(self.place(name)))
    }

    /// A column that may be left out.
    ///
    /// # Errors
    ///
    /// As [`Table::column`], but that it is not there.
    pub fn optional<C: Cell>(&self, name: &str) -> Result<Option<&[C]>, TableError> {
        let Some(cells) = self.cells(name)? else {
            return Ok(None);
        };
        self.check_length(name, self.len(), cells.len())?;
        Ok(Some(cells))
    }

    /// A column of rows of another table that has `rows`; [`NONE`] only where `or_none`.
    ///
    /// # Errors
    ///
    /// As [`Table::column`], and [`TableError::NoRow`].
    pub fn rows_of(&self, name: &str, rows: u32, or_none: bool) -> Result<&[u32], TableError> {
        let cells = self.column::<u32>(name)?;
        let fine = |cell: u32| cell < rows || (or_none && cell == NONE);
        match cells.iter().position(|cell| !fine(*cell)) {
            None => Ok(cells),
            Some(row) => Err(TableError::NoRow {
                place: self.place(name),
                row,
                rows,
            }),
        }
    }

    /// A column of lists, one for each row, that must be there.
    ///
    /// # Errors
    ///
    /// As [`Table::column`], for both columns, and [`TableError::Offsets`].
    pub fn lists<C: Cell>(&self, name: &str) -> Result<Lists<'_, C>, TableError> {
        let cells = self
            .cells(name)?
            .ok_or_else(|| TableError::NoColumn(self.place(name)))?;
        let offsets_name = format!("{name}.offsets");
        let offsets = self
            .cells::<u32>(&offsets_name)?
            .ok_or_else(|| TableError::NoColumn(self.place(&offsets_name)))?;
        self.check_length(&offsets_name, self.len() + 1, offsets.len())?;
        let covers = offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last().map(|end| *end as usize) == Some(cells.len());
        if covers {
            Ok(Lists { cells, offsets })
        } else {
            Err(TableError::Offsets(self.place(&offsets_name)))
        }
    }

    /// The valid cells of a column, however many.
    fn cells<C: Cell>(&self, name: &str) -> Result<Option<&[C]>, TableError> {
        let Some(column) = self.columns.iter().find(|column| column.name == name) else {
            return Ok(None);
        };
        let cells = C::cells(&column.data).ok_or_else(|| TableError::Mistyped {
            place: self.place(name),
            wanted: C::KIND,
            found: column.data.kind(),
        })?;
        match cells.iter().position(|cell| !cell.is_valid()) {
            None => Ok(Some(cells)),
            Some(row) => Err(TableError::NotFinite {
                place: self.place(name),
                row,
            }),
        }
    }

    fn check_length(&self, name: &str, wanted: usize, found: usize) -> Result<(), TableError> {
        if wanted == found {
            return Ok(());
        }
        Err(TableError::Length {
            place: self.place(name),
            wanted,
            found,
        })
    }

    fn place(&self, column: &str) -> Place {
        Place {
            table: self.name.clone(),
            column: column.to_owned(),
        }
    }
}

/// The table of that name.
///
/// # Errors
///
/// [`TableError::NoTable`].
pub fn table<'a>(tables: &'a [Table], name: &str) -> Result<&'a Table, TableError> {
    tables
        .iter()
        .find(|table| table.name == name)
        .ok_or_else(|| TableError::NoTable(name.to_owned()))
}

/// A column of lists.
#[derive(Debug)]
pub struct Lists<'a, C> {
    cells: &'a [C],
    offsets: &'a [u32],
}

impl<'a, C> Lists<'a, C> {
    /// The list of a row; empty beyond the last row.
    #[must_use]
    pub fn of(&self, row: usize) -> &'a [C] {
        let bounds = self.offsets.get(row).zip(self.offsets.get(row + 1));
        bounds
            .and_then(|(from, to)| self.cells.get(*from as usize..*to as usize))
            .unwrap_or_default()
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

/// Tables that are not as they must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableError {
    /// There is no such table.
    NoTable(String),
    /// There is no such column.
    NoColumn(Place),
    /// The column has another type.
    Mistyped {
        /// The column.
        place: Place,
        /// The type that it should have.
        wanted: &'static str,
        /// The type that it has.
        found: &'static str,
    },
    /// The column has too many cells, or too few.
    Length {
        /// The column.
        place: Place,
        /// How many it should have.
        wanted: usize,
        /// How many it has.
        found: usize,
    },
    /// A number is NaN or infinite.
    NotFinite {
        /// The column.
        place: Place,
        /// The cell.
        row: usize,
    },
    /// The offsets of a column of lists do not begin with 0, do not ascend, or do not end where the
    /// cells do.
    Offsets(Place),
    /// A cell names a row that the other table does not have.
    NoRow {
        /// The column.
        place: Place,
        /// The cell.
        row: usize,
        /// How many rows the other table has.
        rows: u32,
    },
    /// A cell has a value that does not mean anything here.
    BadValue {
        /// The column.
        place: Place,
        /// The cell.
        row: usize,
    },
}

impl TableError {
    /// The code of the rejection that it becomes.
    pub const CODE: &'static str = "bad-tables";

    /// A cell that does not mean anything.
    #[must_use]
    pub fn bad_value(table: &str, column: &str, row: usize) -> Self {
        Self::BadValue {
            place: Place {
                table: table.to_owned(),
                column: column.to_owned(),
            },
            row,
        }
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(name) => write!(f, "there is no table {name}"),
            Self::NoColumn(place) => write!(f, "there is no column {place}"),
            Self::Mistyped {
                place,
                wanted,
                found,
            } => write!(f, "column {place} has {found}, not {wanted}"),
            Self::Length {
                place,
                wanted,
                found,
            } => write!(f, "column {place} has {found} cells, not {wanted}"),
            Self::NotFinite { place, row } => {
                write!(
                    f,
                    "column {place} has a number in row {row} that is not finite"
                )
            }
            Self::Offsets(place) => write!(f, "column {place} does not cover its lists"),
            Self::NoRow { place, row, rows } => {
                write!(f, "column {place} names in row {row} a row beyond {rows}")
            }
            Self::BadValue { place, row } => {
                write!(
                    f,
                    "column {place} has in row {row} a value without a meaning"
                )
            }
        }
    }
}

impl core::error::Error for TableError {}

impl From<TableError> for Rejection {
    fn from(error: TableError) -> Self {
        Self::new(TableError::CODE, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(column: &str) -> Place {
        Place {
            table: "t".to_owned(),
            column: column.to_owned(),
        }
    }

    #[test]
    fn missing_tables_and_columns_are_told() {
        let tables = [Table::new("t", 0)];
        assert_eq!(
            table(&tables, "u"),
            Err(TableError::NoTable("u".to_owned()))
        );
        let t = table(&tables, "t").unwrap();
        assert_eq!(t.column::<u32>("c"), Err(TableError::NoColumn(place("c"))));
        assert_eq!(t.optional::<u32>("c"), Ok(None));
    }

    #[test]
    fn mistyped_and_short_columns_are_told() {
        let t = Table::new("t", 2).with("c", vec![1_u32]);
        assert_eq!(
            t.column::<u64>("c"),
            Err(TableError::Mistyped {
                place: place("c"),
                wanted: "u64s",
                found: "u32s",
            })
        );
        assert_eq!(
            t.optional::<u32>("c"),
            Err(TableError::Length {
                place: place("c"),
                wanted: 2,
                found: 1,
            })
        );
    }

    #[test]
    fn numbers_are_finite() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let t = Table::new("t", 2).with("c", vec![0.0, bad]);
            let expected = TableError::NotFinite {
                place: place("c"),
                row: 1,
            };
            assert_eq!(t.column::<f64>("c"), Err(expected));
        }
    }

    #[test]
    fn rows_of_other_tables_exist() {
        let t = Table::new("t", 2).with("c", vec![1_u32, NONE]);
        assert_eq!(t.rows_of("c", 2, true), Ok([1, NONE].as_slice()));
        let beyond = |row, rows| TableError::NoRow {
            place: place("c"),
            row,
            rows,
        };
        assert_eq!(t.rows_of("c", 2, false), Err(beyond(1, 2)));
        assert_eq!(t.rows_of("c", 1, true), Err(beyond(0, 1)));
    }

    #[test]
    fn lists_are_covered_by_their_offsets() {
        let lists = |offsets: &[u32]| {
            Table::new("t", 2).with_offsets("c", vec![7_u32, 8, 9], offsets.to_vec())
        };
        let t = lists(&[0, 1, 3]);
        let c = t.lists::<u32>("c").unwrap();
        assert_eq!((c.of(0), c.of(1)), ([7].as_slice(), [8, 9].as_slice()));
        assert!(c.of(2).is_empty());
        for bad in [[0, 1, 2], [1, 1, 3], [0, 4, 3]] {
            assert_eq!(
                lists(&bad).lists::<u32>("c").unwrap_err(),
                TableError::Offsets(place("c.offsets"))
            );
        }
        assert!(matches!(
            lists(&[0, 3]).lists::<u32>("c").unwrap_err(),
            TableError::Length { wanted: 3, .. }
        ));
    }
}
