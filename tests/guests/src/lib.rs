//! A guest that misbehaves in every way that the host must withstand: one operation for each.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use folkmoot_sdk::prelude::*;

/// Calls of this instance: what a guest must not rely on.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// A guest that misbehaves.
#[derive(Debug, Default)]
pub struct Hostile {
    greeting: String,
}

impl Recipe for Hostile {
    fn describe() -> Description {
        Description::new("hostile", env!("CARGO_PKG_VERSION"))
            .operation("write", "Writes the node `written` and behaves.")
            .operation(
                "write-then",
                "Writes the node `written` and then does `what`.",
            )
    }

    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        match configuration {
            b"no" => Err(Rejection::new("refused", "it says no")),
            b"panic" => panic!("it can not be configured"),
            b"spin" => spin(),
            greeting => {
                self.greeting = String::from_utf8_lossy(greeting).into_owned();
                Ok(())
            }
        }
    }

    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        match operation.name() {
            "write" => write(cx),
            "write-then" => {
                write(cx)?;
                misbehave(cx, &operation.argument::<String>("what")?)
            }
            "calls" => Outcome::reply(&calls),
            "greeting" => Outcome::reply(&self.greeting),
            "many-calls" => {
                for _ in 0..operation.argument::<u64>("calls")? {
                    black_box(cx.tree().stat("")?);
                }
                Outcome::reply(&())
            }
            "reply" => Ok(Outcome::Reply(vec![b'1'; operation.argument("bytes")?])),
            "memo" => Ok(Outcome::wait(None, vec![0; operation.argument("bytes")?])),
            "touch" => touch(cx, &operation.argument::<String>("path")?),
            what => misbehave(cx, what),
        }
    }

    fn on_event(&self, cx: &mut Context, event: Event) -> Result<(), Rejection> {
        write(cx)?;
        match event {
            Event::Resync => Ok(()),
            event => Err(Rejection::new("unwanted", format_args!("{event:?}"))),
        }
    }
}

folkmoot_sdk::export!(Hostile);

fn write(cx: &mut Context) -> Result<Outcome, Rejection> {
    cx.tree_mut().put("written", "by a guest")?;
    Outcome::reply(&())
}

fn misbehave(cx: &mut Context, what: &str) -> Result<Outcome, Rejection> {
    match what {
        "panic" => panic!("it was asked to panic"),
        "overflow-stack" => Outcome::reply(&recurse(1)),
        "spin" => spin(),
        "copy" => copy(cx),
        "allocate" => allocate(),
        "call-forever" => loop {
            black_box(cx.tree().stat("")?);
        },
        "log-forever" => loop {
            cx.log("again");
        },
        "write-forever" => {
            for number in 0.. {
                let value = vec![b'v'; 1024 * 1024];
                cx.tree_mut().put(&format!("large-{number}"), value)?;
            }
            Outcome::reply(&())
        }
        "write-huge" => {
            cx.tree_mut().put("huge", vec![b'v'; 3 * 1024 * 1024])?;
            Outcome::reply(&())
        }
        "reply-huge" => Ok(Outcome::Reply(vec![b'1'; 3 * 1024 * 1024])),
        "reject" => Err(Rejection::new("refused", "it says no")),
        "reject-huge" => Err(Rejection::new("refused", "n".repeat(1024 * 1024 + 1))),
        _ => Err(Operation::new(what, b"").unknown()),
    }
}

/// Many small steps: fuel ends it.
fn spin() -> ! {
    let mut steps = 0_u64;
    loop {
        steps = black_box(steps.wrapping_add(1));
    }
}

/// Few steps that make the host copy much, which costs little fuel and much time: the epoch ends it.
fn copy(cx: &mut Context) -> Result<Outcome, Rejection> {
    cx.tree_mut().put("large", vec![b'v'; 1024 * 1024])?;
    for _ in 0..900 {
        black_box(cx.tree().node("large")?);
    }
    Outcome::reply(&())
}

fn allocate() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(black_box(Vec::<u8>::with_capacity(1024 * 1024)));
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX {
        return depth;
    }
    let frame = black_box([depth; 32]);
    let below = recurse(depth + 1);
    frame
        .iter()
        .fold(below, |sum, value| sum.wrapping_add(*value))
}

/// Replies with how each operation on a path was refused.
fn touch(cx: &mut Context, path: &str) -> Result<Outcome, Rejection> {
    let code = |error: TreeError| error.code().to_owned();
    let refusals = [
        cx.tree().node(path).err().map(code),
        cx.tree_mut().create(path, "").err().map(code),
        cx.tree_mut().set(path, "").err().map(code),
        cx.tree_mut().delete(path).err().map(code),
        cx.tree().children(path, None, 1).err().map(code),
    ];
    Outcome::reply(&refusals)
}
