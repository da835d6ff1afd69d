//! The component's side of the world `rebalancer`.

use core::cell::RefCell;
use core::marker::PhantomData;

use bindings::exports::folkmoot::plugin::planner;
use bindings::folkmoot::plugin::{log, tables, types};

use crate::rebalancer::{Input, Rebalancer};
use crate::rejection::Rejection;
use crate::table::{Column, Data, Table};

/// What wit-bindgen makes of the WIT. Not part of the SDK's interface.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated: lifts and lowers values across the boundary"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "rebalancer",
        pub_export_macro: true,
        export_macro_name: "export_rebalancer_component",
    });
}

pub use bindings::export_rebalancer_component;

thread_local! {
    /// The configuration as it came; a component has one thread.
    static CONFIGURATION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The component that a policy makes.
#[derive(Debug)]
pub struct Component<R>(PhantomData<R>);

impl<R: Rebalancer> planner::Guest for Component<R> {
    fn describe() -> String {
        log_panics();
        R::describe().to_json()
    }

    fn configure(configuration: Vec<u8>) -> Result<(), types::Rejection> {
        log_panics();
        R::default().configure(&configuration)?;
        CONFIGURATION.set(configuration);
        Ok(())
    }

    fn plan(input: Vec<tables::Table>) -> Result<Vec<tables::Table>, types::Rejection> {
        log_panics();
        // A policy keeps nothing between calls: its configuration is read anew.
        let mut policy = R::default();
        CONFIGURATION.with_borrow(|configuration| policy.configure(configuration))?;
        let tables: Vec<Table> = input.into_iter().map(Table::from).collect();
        let input = Input::from_tables(&tables).map_err(Rejection::from)?;
        drop(tables);
        let plan = policy.plan(&input)?.into_tables();
        Ok(plan.into_iter().map(tables::Table::from).collect())
    }
}

/// Has a panic's text logged before the trap, which by itself says nothing.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::write(&panic.to_string())));
}

impl From<tables::Table> for Table {
    fn from(table: tables::Table) -> Self {
        let column = |column: tables::Column| Column {
            name: column.name,
            data: column.data.into(),
        };
        Self {
            name: table.name,
            rows: table.rows,
            columns: table.columns.into_iter().map(column).collect(),
        }
    }
}

impl From<Table> for tables::Table {
    fn from(table: Table) -> Self {
        let column = |column: Column| tables::Column {
            name: column.name,
            data: column.data.into(),
        };
        Self {
            name: table.name,
            rows: table.rows,
            columns: table.columns.into_iter().map(column).collect(),
        }
    }
}

impl From<tables::Data> for Data {
    fn from(data: tables::Data) -> Self {
        match data {
            tables::Data::U32s(cells) => Self::U32s(cells),
            tables::Data::U64s(cells) => Self::U64s(cells),
            tables::Data::F64s(cells) => Self::F64s(cells),
            tables::Data::Strings(cells) => Self::Strings(cells),
            tables::Data::Other(bytes) => Self::Other(bytes),
        }
    }
}

impl From<Data> for tables::Data {
    fn from(data: Data) -> Self {
        match data {
            Data::U32s(cells) => Self::U32s(cells),
            Data::U64s(cells) => Self::U64s(cells),
            Data::F64s(cells) => Self::F64s(cells),
            Data::Strings(cells) => Self::Strings(cells),
            Data::Other(bytes) => Self::Other(bytes),
        }
    }
}

impl From<Rejection> for types::Rejection {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.code,
            message: rejection.message,
            details: rejection.details,
        }
    }
}
