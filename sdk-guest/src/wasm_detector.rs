//! The component's side of the world `failure-detector`: the WIT's exports, made of a
//! [`FailureDetector`].

use core::cell::OnceCell;
use core::marker::PhantomData;
use std::any::Any;

use bindings::exports::folkmoot::plugin::detector;

use crate::detector::{FailureDetector, assess_tables};
use crate::table::Table;
use crate::wasm_rebalancer::bindings::folkmoot::plugin::{log, tables, types};

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
        world: "failure-detector",
        // One copy of what the policies' worlds have in common.
        with: {
            "folkmoot:plugin/types@0.1.0": crate::wasm_rebalancer::bindings::folkmoot::plugin::types,
            "folkmoot:plugin/tables@0.1.0": crate::wasm_rebalancer::bindings::folkmoot::plugin::tables,
            "folkmoot:plugin/log@0.1.0": crate::wasm_rebalancer::bindings::folkmoot::plugin::log,
        },
        pub_export_macro: true,
        export_macro_name: "export_detector_component",
    });
}

pub use bindings::export_detector_component;

thread_local! {
    /// The configured policy; a component has one thread.
    static POLICY: OnceCell<Box<dyn Any>> = const { OnceCell::new() };
}

/// The component that a policy makes.
#[derive(Debug)]
pub struct Component<D>(PhantomData<D>);

impl<D: FailureDetector> detector::Guest for Component<D> {
    fn describe() -> String {
        log_panics();
        D::describe().to_json()
    }

    fn configure(configuration: Vec<u8>) -> Result<(), types::Rejection> {
        log_panics();
        let mut policy = D::default();
        policy.configure(&configuration)?;
        let configured = POLICY.with(|of| of.set(Box::new(policy)));
        assert!(configured.is_ok(), "an instance is configured once");
        Ok(())
    }

    fn assess(input: Vec<tables::Table>) -> Result<Vec<tables::Table>, types::Rejection> {
        let input: Vec<Table> = input.into_iter().map(Table::from).collect();
        let output = POLICY.with(|policy| {
            match policy.get().and_then(|policy| policy.downcast_ref::<D>()) {
                Some(policy) => assess_tables(policy, &input),
                None => panic!("the instance was not configured"),
            }
        })?;
        Ok(output.into_iter().map(tables::Table::from).collect())
    }
}

/// Has a panic's text logged before the trap, which by itself says nothing.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::write(&panic.to_string())));
}
