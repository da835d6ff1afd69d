//! Native recipes: a lock with waits, a counter that remembers what it should not, a hostile one.

use std::collections::BTreeMap;

use folkmoot_proto::effect::MountEvent;
use folkmoot_proto::{Digest, LogTime, SessionId, Ticket};

use crate::execution::view::TxnView;
use crate::plugin::{
    CallResult, Discard, FaultKind, GuestCall, GuestOutcome, InstanceKey, PluginFault,
    PluginRuntime, Rejection,
};

/// Runs the recipes, each by its component's bytes: `lock`, `memory`, `hostile`.
#[derive(Default)]
pub(super) struct TestPlugins {
    kinds: BTreeMap<Digest, String>,
    /// Warm instances, and what each remembers.
    instances: BTreeMap<InstanceKey, u64>,
    /// Components that are not compiled yet.
    pub(super) loading: bool,
    /// What `hostile` heard, in order.
    pub(super) heard: Vec<MountEvent>,
    /// Handlers of `hostile` that fault before one works.
    pub(super) faults_left: u32,
    pub(super) calls: u64,
}

impl TestPlugins {
    pub(super) fn compile(&mut self, digest: Digest, bytes: &[u8]) {
        let kind = String::from_utf8_lossy(bytes).into_owned();
        self.kinds.insert(digest, kind);
    }
}

impl PluginRuntime for TestPlugins {
    fn is_ready(&self, digest: Digest) -> bool {
        !self.loading && self.kinds.contains_key(&digest)
    }

    fn call(
        &mut self,
        key: InstanceKey,
        config: &[u8],
        call: GuestCall,
        mut view: TxnView,
    ) -> (TxnView, CallResult) {
        self.calls += 1;
        let result = match self.kinds[&key.digest].as_str() {
            "lock" => lock(&mut view, call),
            "memory" => self.memory(key, &mut view, &call),
            _ => self.hostile(&mut view, config, call),
        };
        if result.is_err() {
            self.instances.remove(&key);
        }
        (view, result)
    }

    fn discard(&mut self, which: Discard) {
        match which {
            Discard::All => self.instances.clear(),
            Discard::Mount(mount) => self.instances.retain(|key, _| key.mount != mount),
        }
    }
}

fn done(result: Result<GuestOutcome, Rejection>) -> CallResult {
    Ok(result)
}

pub(super) fn rejection(code: &str) -> Rejection {
    Rejection {
        code: code.to_owned(),
        message: String::new(),
        details: Vec::new(),
    }
}

fn fault(kind: FaultKind) -> CallResult {
    Err(PluginFault {
        kind,
        message: "as asked".to_owned(),
    })
}

/// `acquire`, `try`, `acquire-by:<log time>`, `release`. The holder is the ephemeral node `holder`;
/// the queue is the sequential ephemeral nodes below `queue`, each with a ticket.
fn lock(view: &mut TxnView, call: GuestCall) -> CallResult {
    match call {
        GuestCall::Configure | GuestCall::Migrate { .. } => done(Ok(GuestOutcome::Done)),
        GuestCall::OnEvent { .. } => {
            if view.read("holder").is_err() {
                grant_next(view);
            }
            done(Ok(GuestOutcome::Done))
        }
        GuestCall::Invoke { operation, .. } => {
            let session = view.context().session.expect("a client calls");
            let (operation, deadline) = match operation.split_once(':') {
                Some((name, due)) => (name.to_owned(), due.parse().ok().map(LogTime)),
                None => (operation, None),
            };
            match operation.as_str() {
                "acquire" | "try" if view.read("holder").is_err() => {
                    let token = hold(view, session);
                    done(Ok(GuestOutcome::Reply(token)))
                }
                "try" => done(Err(rejection("held"))),
                "acquire" | "acquire-by" => {
                    if view.read("queue").is_err() {
                        view.create("queue", Vec::new(), false).expect("a queue");
                    }
                    let ticket = view.context().zxid.0.to_be_bytes().to_vec();
                    view.create_ephemeral("queue/n", ticket.clone(), session, true)
                        .expect("a place");
                    done(Ok(GuestOutcome::Wait {
                        deadline,
                        memo: ticket,
                    }))
                }
                "release" => release(view, session),
                _ => done(Err(rejection("unknown-operation"))),
            }
        }
    }
}

fn release(view: &mut TxnView, session: SessionId) -> CallResult {
    match view.read("holder") {
        Ok((_, stat)) if stat.ephemeral_owner == Some(session) => {
            view.delete("holder", None).expect("the holder");
            grant_next(view);
            done(Ok(GuestOutcome::Reply(Vec::new())))
        }
        _ => done(Err(rejection("not-held"))),
    }
}

fn hold(view: &mut TxnView, session: SessionId) -> Vec<u8> {
    let created = view.create_ephemeral("holder", Vec::new(), session, false);
    let (token, _) = created.expect("a grant");
    token.0.to_be_bytes().to_vec()
}

fn grant_next(view: &mut TxnView) {
    let queue = view.children("queue", None, 1000).unwrap_or_default();
    for name in queue {
        let path = format!("queue/{name}");
        let Ok((ticket, stat)) = view.read(&path) else {
            continue;
        };
        view.delete(&path, None).expect("a place");
        let ticket = Ticket(u64::from_be_bytes(ticket.try_into().expect("a ticket")));
        let owner = stat.ephemeral_owner.expect("an owner");
        let token = view.context().zxid.0.to_be_bytes().to_vec();
        if view.complete(ticket, Ok(token)) {
            hold(view, owner);
            return;
        }
    }
}

impl TestPlugins {
    /// `add`: answers one more than it remembers, and remembers it; what it wrote is the truth.
    fn memory(&mut self, key: InstanceKey, view: &mut TxnView, call: &GuestCall) -> CallResult {
        let stored = view.read("total").ok();
        let stored = stored.map_or(0, |(data, _)| {
            u64::from_be_bytes(data.try_into().expect("a total"))
        });
        let GuestCall::Invoke { operation, .. } = call else {
            return done(Ok(GuestOutcome::Done));
        };
        let remembered = self.instances.entry(key).or_insert(stored);
        *remembered += 1;
        let total = remembered.to_be_bytes().to_vec();
        if view.read("total").is_ok() {
            view.set("total", total.clone(), None).expect("a total");
        } else {
            view.create("total", total.clone(), false).expect("a total");
        }
        match operation.as_str() {
            "add" => done(Ok(GuestOutcome::Reply(total))),
            _ => done(Err(rejection("after-a-write"))),
        }
    }

    fn hostile(&mut self, view: &mut TxnView, config: &[u8], call: GuestCall) -> CallResult {
        match call {
            GuestCall::Migrate { from_state_version } => {
                let from = vec![u8::try_from(from_state_version).expect("a small version")];
                if view.set("migrated", from.clone(), None).is_err() {
                    view.create("migrated", from, false).expect("a node");
                }
                match config {
                    b"reject" => done(Err(rejection("no-way"))),
                    b"trap" => fault(FaultKind::Trap),
                    _ => done(Ok(GuestOutcome::Done)),
                }
            }
            GuestCall::Configure => match view.create("x", Vec::new(), false) {
                Ok(_) => fault(FaultKind::Contract),
                Err(_) => done(Ok(GuestOutcome::Done)),
            },
            GuestCall::OnEvent { event } => {
                view.create("handled", Vec::new(), true).expect("a node");
                if self.faults_left > 0 {
                    self.faults_left -= 1;
                    return fault(FaultKind::Trap);
                }
                self.heard.push(event);
                done(Ok(GuestOutcome::Done))
            }
            GuestCall::Invoke { operation, payload } => match operation.as_str() {
                "follow" => {
                    let session = view.context().session.expect("a client calls");
                    view.follow(session);
                    view.create_ephemeral("owned", Vec::new(), session, false)
                        .expect("a node");
                    done(Ok(GuestOutcome::Reply(Vec::new())))
                }
                "wait" => done(Ok(GuestOutcome::Wait {
                    deadline: None,
                    memo: payload,
                })),
                "timer" => {
                    let due = view.context().now.plus_millis(500);
                    let name = match payload.first() {
                        Some(first) if payload.len() > 1000 => format!("t{first}"),
                        _ => "t".to_owned(),
                    };
                    view.set_timer(&name, due, payload).expect("a timer");
                    done(Ok(GuestOutcome::Reply(Vec::new())))
                }
                "trap" => {
                    view.create("trace", Vec::new(), false).expect("a node");
                    fault(FaultKind::Trap)
                }
                "flood" => {
                    let data = vec![0; 1024 * 1024];
                    for number in 0..8 {
                        let _ = view.create(&format!("f{number}"), data.clone(), false);
                    }
                    done(Ok(GuestOutcome::Reply(Vec::new())))
                }
                // Megabytes that are written, and one that is answered.
                "write" | "write-and-reply" => {
                    let count = payload.first().copied().unwrap_or_default();
                    for number in 0..count {
                        let data = vec![0; 1_000_000];
                        view.create(&format!("w{number}"), data, false)
                            .expect("a node");
                    }
                    let is_large = operation == "write-and-reply";
                    let reply = vec![0; if is_large { 1_000_000 } else { 1 }];
                    done(Ok(GuestOutcome::Reply(reply)))
                }
                "escape" => {
                    let tried = [
                        view.create("../out", Vec::new(), false).is_err(),
                        view.create("/out", Vec::new(), false).is_err(),
                        view.create("", Vec::new(), false).is_err(),
                        view.delete("", None).is_err(),
                        view.read("..").is_err(),
                    ];
                    done(Ok(GuestOutcome::Reply(tried.map(u8::from).to_vec())))
                }
                "wrong" => done(Ok(GuestOutcome::Done)),
                _ => done(Err(rejection("unknown-operation"))),
            },
        }
    }
}
