//! A recipe that deliberately keeps in its memory what it should read: the total of the last call.
//! It is right only as long as an instance never outlives the overlay it has seen, nor a call that
//! was undone (rule R14).

use std::cell::Cell;

use folkmoot_sdk::prelude::*;

/// The node that holds the total.
const TOTAL: &str = "total";

/// Adds to a total that it remembers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    remembered: Cell<Option<i64>>,
}

impl Recipe for Ledger {
    fn describe() -> Description {
        Description::new("ledger", "0")
    }

    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
        let amount: i64 = operation.argument("amount")?;
        let total = match self.remembered.get() {
            Some(total) => total,
            None => cx.tree().read_i64(TOTAL)?,
        };
        let total = total.wrapping_add(amount);
        self.remembered.set(Some(total));
        cx.tree_mut().write_i64(TOTAL, total)?;
        match operation.name() {
            "add" => Outcome::reply(&total),
            _ => Err(Rejection::new("changed-mind", "what was written is undone")),
        }
    }

    fn on_event(&self, _cx: &mut Context, _event: Event) -> Result<(), Rejection> {
        Ok(())
    }
}
