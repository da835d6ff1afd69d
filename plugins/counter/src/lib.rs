//! The standard plugin `counter`: one number that many clients add to.
//!
//! The number is the value of the node `total` below the mount, in decimal digits, so that it can
//! be read and watched without a call. Each call is executed exactly once, so an addition counts
//! once, however often its client had to send it.

use folkmoot_sdk::prelude::*;
use serde_json::json;

/// The node that holds the number.
const TOTAL: &str = "total";

/// A counter under its mount.
#[derive(Debug, Default)]
pub struct Counter;

impl Recipe for Counter {
    fn describe() -> Description {
        let total = json!({"type": "object", "properties": {"total": {"type": "integer"}}});
        let nothing = json!({"type": "object", "additionalProperties": false});
        Description::new("counter", env!("CARGO_PKG_VERSION"))
            .operation("add", "Adds `amount` and replies with the new total.")
            .takes(json!({
                "type": "object",
                "properties": {"amount": {"type": "integer"}},
                "required": ["amount"],
                "additionalProperties": false,
            }))
            .replies(total.clone())
            .rejects("overflow")
            .operation("read", "Replies with the total.")
            .takes(nothing.clone())
            .replies(total.clone())
            .operation("reset", "Sets the total to 0 and replies with what it was.")
            .takes(nothing)
            .replies(total)
    }

    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
        match operation.name() {
            "add" => add(cx, &operation.arguments()?),
            "read" => {
                operation.no_arguments()?;
                reply(cx.tree().read_i64(TOTAL)?)
            }
            "reset" => {
                operation.no_arguments()?;
                let total = cx.tree().read_i64(TOTAL)?;
                cx.tree_mut().write_i64(TOTAL, 0)?;
                reply(total)
            }
            _ => Err(operation.unknown()),
        }
    }
}

folkmoot_sdk::export!(Counter);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    amount: i64,
}

#[derive(serde::Serialize)]
struct Total {
    total: i64,
}

fn add(cx: &mut Context, arguments: &Add) -> Result<Outcome, Rejection> {
    let before = cx.tree().read_i64(TOTAL)?;
    let Some(total) = before.checked_add(arguments.amount) else {
        return Err(
            Rejection::new("overflow", "the total would not fit 64 bits").with("total", before),
        );
    };
    cx.tree_mut().write_i64(TOTAL, total)?;
    reply(total)
}

fn reply(total: i64) -> Result<Outcome, Rejection> {
    Outcome::reply(&Total { total })
}
