//! The core's tables as the WIT's, and back. Cells are moved, not copied.

use folkmoot_core::policy::{Cells, Column, Table};

use crate::generated::rebalancer::folkmoot::plugin::tables;

impl From<Table> for tables::Table {
    fn from(table: Table) -> Self {
        let column = |column: Column| tables::Column {
            name: column.name,
            data: match column.data {
                Cells::U32s(cells) => tables::Data::U32s(cells),
                Cells::U64s(cells) => tables::Data::U64s(cells),
                Cells::F64s(cells) => tables::Data::F64s(cells),
                Cells::Strings(cells) => tables::Data::Strings(cells),
                Cells::Other(bytes) => tables::Data::Other(bytes),
            },
        };
        Self {
            name: table.name,
            rows: table.rows,
            columns: table.columns.into_iter().map(column).collect(),
        }
    }
}

impl From<tables::Table> for Table {
    fn from(table: tables::Table) -> Self {
        let column = |column: tables::Column| Column {
            name: column.name,
            data: match column.data {
                tables::Data::U32s(cells) => Cells::U32s(cells),
                tables::Data::U64s(cells) => Cells::U64s(cells),
                tables::Data::F64s(cells) => Cells::F64s(cells),
                tables::Data::Strings(cells) => Cells::Strings(cells),
                tables::Data::Other(bytes) => Cells::Other(bytes),
            },
        };
        Self {
            name: table.name,
            rows: table.rows,
            columns: table.columns.into_iter().map(column).collect(),
        }
    }
}
