//! Stories as scripts, a command a line. Nothing happens by itself: messages and writes wait until
//! `settle`, `pass` or one of the commands that deliver them.
//!
//! | command | what it does |
//! |---|---|
//! | `elect M` | two seconds later `M` times out, and all settles |
//! | `time-out M` | two seconds later `M` times out |
//! | `propose M TEXT` | `M` appends an entry |
//! | `settle`, `pass MS` | all is delivered and synced; so much time passes, too |
//! | `deliver A B` | the oldest message from `A` to `B` arrives |
//! | `newest A B` | the newest one arrives |
//! | `lose A B`, `lose-all` | messages from `A` to `B`, or all, are lost |
//! | `sync M` | the writes of `M` reach its disk |
//! | `stall M`, `recover M` | the disk of `M` does not sync; it does again |
//! | `cut A B`, `isolate M`, `heal` | nothing gets from `A` to `B`; to and from `M`; all does |
//! | `crash M`, `start M` | what `M` did not sync is lost; it starts again |
//! | `wipe M`, `damage M N` | a crashed member loses its disk, or its last `N` entries |
//! | `rebuild M` | a crashed member loses its disk, and does not know |
//! | `compact M` | `M` recycles its log up to what is applied |
//! | `transfer A B` | `A` hands leadership to `B` |
//! | `read M` | `M` asks for a read barrier |
//! | `leads M TERM`, `follows M` | what `M` must be |
//! | `log M TERM…` | the terms of its entries after entry 1 |
//! | `commit M INDEX`, `applied M INDEX`, `all INDEX` | what is committed, applied, by all |
//! | `votes M BOOL` | whether it may vote |
//! | `reads READY LOST` | how many barriers ended how |

use folkmoot_core::consensus::{ConsensusStatus, Role};
use folkmoot_proto::MemberId;

use crate::cluster::Cluster;
use crate::fixtures::{index, member, term};

/// Runs a script; panics with the line that does not hold.
pub(crate) fn run(cluster: &mut Cluster, script: &str) {
    for (number, line) in script.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((command, rest)) = words.split_first() else {
            continue;
        };
        let outcome = act(cluster, command, rest).unwrap_or_else(|| check(cluster, command, rest));
        if let Err(found) = outcome {
            panic!(
                "line {}: {}: {found}\n{}",
                number + 1,
                line.trim(),
                cluster.describe()
            );
        }
    }
}

fn id(word: &str) -> MemberId {
    member(number(word))
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word} is no number"))
}

/// A command; none if it is no command but a check.
fn act(cluster: &mut Cluster, command: &str, rest: &[&str]) -> Option<Result<(), String>> {
    match (command, rest) {
        ("elect", [m]) => {
            time_out(cluster, id(m));
            cluster.settle();
        }
        ("time-out", [m]) => time_out(cluster, id(m)),
        ("propose", [m, text]) => {
            let outcome = cluster.propose(id(m), text);
            if !matches!(outcome, Some(Ok(_))) {
                return Some(Err(format!("{outcome:?}")));
            }
        }
        ("settle", []) => cluster.settle(),
        ("pass", [ms]) => cluster.pass(number(ms)),
        ("deliver", [a, b]) => return Some(deliver(cluster, id(a), id(b), false)),
        ("newest", [a, b]) => return Some(deliver(cluster, id(a), id(b), true)),
        ("lose", [a, b]) => {
            let (a, b) = (id(a), id(b));
            cluster
                .flights
                .retain(|flight| (flight.from, flight.to) != (a, b));
        }
        ("lose-all", []) => cluster.flights.clear(),
        ("sync", [m]) => {
            while cluster.nodes[&id(m)].disk.pending_records() > 0 {
                cluster.sync(id(m));
            }
        }
        ("stall", [m]) => drop(cluster.stalled.insert(id(m))),
        ("recover", [m]) => drop(cluster.stalled.remove(&id(m))),
        ("cut", [a, b]) => drop(cluster.cut.insert((id(a), id(b)))),
        ("isolate", [m]) => {
            for other in cluster.ids() {
                cluster.cut.insert((id(m), other));
                cluster.cut.insert((other, id(m)));
            }
        }
        ("heal", []) => cluster.cut.clear(),
        ("crash", [m]) => cluster.crash(id(m), 0),
        ("start", [m]) => cluster.start(id(m)),
        ("wipe", [m]) => cluster.wipe(id(m)),
        ("rebuild", [m]) => cluster.rebuild(id(m)),
        ("damage", [m, lost]) => cluster.damage(id(m), number(lost) as usize),
        ("compact", [m]) => cluster.compact(id(m)),
        ("transfer", [a, b]) => {
            let target = Some(id(b));
            cluster.input(id(a), |machine, now| {
                machine.transfer_leadership(now, target)
            });
        }
        ("read", [m]) => drop(cluster.read(id(m))),
        _ => return None,
    }
    Some(Ok(()))
}

/// Long enough for nobody to hold a candidate off.
fn time_out(cluster: &mut Cluster, id: MemberId) {
    cluster.now = cluster.now.plus_millis(2000);
    cluster.time_out(id);
}

fn deliver(
    cluster: &mut Cluster,
    from: MemberId,
    to: MemberId,
    newest: bool,
) -> Result<(), String> {
    let mut flights = cluster.flights.iter();
    let is_it = |flight: &crate::cluster::Flight| (flight.from, flight.to) == (from, to);
    let place = match newest {
        true => cluster.flights.iter().rposition(is_it),
        false => flights.position(is_it),
    };
    let place = place.ok_or("no message is on its way")?;
    cluster.deliver(place);
    Ok(())
}

fn check(cluster: &Cluster, command: &str, rest: &[&str]) -> Result<(), String> {
    let status = |m: &str| -> Result<ConsensusStatus, String> {
        let machine = cluster.nodes[&id(m)].machine.as_ref();
        Ok(machine.ok_or("it is down")?.status())
    };
    let must = |holds: bool, found: String| if holds { Ok(()) } else { Err(found) };
    match (command, rest) {
        ("leads", [m, in_term]) => {
            let status = status(m)?;
            let holds = status.role == Role::Leader && status.term == term(number(in_term));
            must(holds, format!("{:?} in {}", status.role, status.term))
        }
        ("follows", [m]) => {
            let role = status(m)?.role;
            must(role != Role::Leader, format!("{role:?}"))
        }
        ("log", [m, terms @ ..]) => {
            let log = cluster.nodes[&id(m)].disk.written();
            let entries = log.entries.iter().filter(|entry| entry.index > index(1));
            let found: Vec<u64> = entries.map(|entry| entry.term.0).collect();
            let wanted: Vec<u64> = terms.iter().map(|word| number(word)).collect();
            must(found == wanted, format!("{found:?}"))
        }
        ("commit", [m, at]) => {
            let commit = status(m)?.commit_index;
            must(commit == index(number(at)), format!("{commit}"))
        }
        ("applied", [m, at]) => {
            let applied = cluster.nodes[&id(m)].applied;
            must(applied == index(number(at)), format!("{applied}"))
        }
        ("all", [at]) => {
            let is_there = |node: &crate::cluster::Node| node.applied == index(number(at));
            must(cluster.nodes.values().all(is_there), "not all".into())
        }
        ("votes", [m, may]) => {
            let found = status(m)?.may_vote;
            must(found.to_string() == *may, format!("{found}"))
        }
        ("reads", [ready, lost]) => {
            let found = cluster
                .answered
                .values()
                .filter(|index| index.is_some())
                .count();
            let gone = cluster.answered.len() - found;
            let holds = [found as u64, gone as u64] == [number(ready), number(lost)];
            must(holds, format!("{found} {gone}"))
        }
        _ => Err("no such command".into()),
    }
}
