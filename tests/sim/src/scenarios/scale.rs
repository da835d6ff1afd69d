//! `folkmoot-sim scale`: what a large map costs a leader, on the clock of this machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use folkmoot_core::state::View as _;
use folkmoot_proto::client::{ClientFrame, Operation, ServerFrame};
use folkmoot_proto::frame::to_bytes;
use folkmoot_proto::group::{GroupOperation, MemberSpec};
use folkmoot_proto::partition::{
    Layout, MapConfig, MapDetail, MapOperation, MemberNo, PolicyChoice,
};
use folkmoot_proto::{MapId, Zxid};

use super::leader::{Client, Leader};
use crate::dice::Dice;
use crate::policies::{self, Planner};

const GROUP: &str = "shards";
const ZONES: u32 = 3;

/// Gives a map of so many partitions to so many members by `sticky-balanced`, run natively, ends the
/// session of one, and says what each took: of the execution thread, in the log, and to a router. One
/// router is told the whole map; the others have it, and are told what changes.
///
/// # Errors
///
/// What did not come to pass.
pub fn scale(members: u32, partitions: u32, routers: u32) -> Result<String, String> {
    let mut said = String::new();
    let mut leader = Leader::new()?;
    let mut admin = leader.open(0)?;
    let mut workers = Vec::new();
    for number in 1..=members {
        let mut worker = leader.open(number)?;
        leader.ask(&mut worker, join(number));
        leader.run()?;
        workers.push(worker);
    }
    leader.install(&mut admin, Planner::Sticky.bytes())?;
    let before = resident_mib();
    phase(&mut said, "creating the map", &mut leader, |leader| {
        let config = MapConfig {
            policy: Some(PolicyChoice {
                digest: Planner::Sticky.digest(),
                configuration: String::new(),
            }),
            readiness: false,
            offline_delay_ms: 0,
            recovery_per_minute: 1_000_000,
            ..MapConfig::default()
        };
        let layout = Layout::Ranges(partitions);
        ask(leader, &mut admin, MapOperation::Create { config, layout })
    })?;
    let planned = phase(&mut said, "placing everything", &mut leader, |leader| {
        settle(leader, partitions)
    })?;
    let _ = writeln!(
        said,
        "  of the policy, on a thread of its own: {} ms",
        planned.as_millis()
    );
    let _ = writeln!(
        said,
        "  memory: {} MiB more",
        resident_mib().saturating_sub(before)
    );
    let mut subscribed = vec![leader.open(members + 1)?];
    phase(
        &mut said,
        "telling a router the map",
        &mut leader,
        |leader| subscribe(leader, &subscribed[0], None),
    )?;
    let through = told(&mut said, &mut leader, &subscribed).and_then(|told| told.through);
    for number in 1..routers {
        subscribed.push(leader.open(members + 1 + number)?);
    }
    phase(
        &mut said,
        &format!("subscribing {routers} routers"),
        &mut leader,
        |leader| {
            let mut others = subscribed.iter().skip(1);
            others.try_for_each(|router| subscribe(leader, router, through))
        },
    )?;
    told(&mut said, &mut leader, &subscribed);
    let mut lost = workers.swap_remove(workers.len() / 2);
    let had = owned_by(&leader, members / 2)?;
    let planned = phase(&mut said, "losing a member", &mut leader, |leader| {
        leader.ask(&mut lost, Operation::CloseSession);
        leader.run()?;
        settle(leader, partitions)
    })?;
    let _ = writeln!(
        said,
        "  of the policy, on a thread of its own: {} ms",
        planned.as_millis()
    );
    let told = told(&mut said, &mut leader, &subscribed).ok_or("nobody is told")?;
    let most = 64 + 8 * had;
    let _ = writeln!(said, "  {had} partitions changed: {most} bytes may be told");
    match told.most <= most {
        true => Ok(said),
        false => Err(format!("{said}\na router is told too much")),
    }
}

fn join(number: u32) -> Operation {
    let name = format!("m{number}");
    Operation::Group {
        group: GROUP.to_owned(),
        operation: GroupOperation::Join {
            spec: MemberSpec {
                zone: format!("z{}", number % ZONES),
                ..MemberSpec::at(name.clone())
            },
            predecessor: None,
        },
        member: name,
    }
}

fn ask(leader: &mut Leader, admin: &mut Client, operation: MapOperation) -> Result<(), String> {
    let operation = Operation::Map {
        group: GROUP.to_owned(),
        operation,
    };
    let reply = leader.call(admin, operation)?;
    reply.map(|_| ()).map_err(|refusal| refusal.to_string())
}

/// Answers what is asked until everything has an owner who lives. Answers what the policy took.
fn settle(leader: &mut Leader, partitions: u32) -> Result<Duration, String> {
    let mut dice = Dice::new(1, "scale");
    let mut planned = Duration::ZERO;
    for _ in 0..1_000 {
        while let Some((id, call)) = leader.questions.pop_front() {
            let started = Instant::now();
            let answer = policies::answer(&call, &mut dice, false).ok_or("no answer")?;
            planned += started.elapsed();
            leader.answer(id, answer)?;
        }
        leader.pass(10)?;
        let owned = owned(leader)?;
        if leader.questions.is_empty() && owned == partitions as usize {
            return Ok(planned);
        }
    }
    Err(format!(
        "{} of {partitions} partitions have owners",
        owned(leader)?
    ))
}

fn owned_by(leader: &Leader, member: u32) -> Result<usize, String> {
    let state = leader.execution.state();
    let (map, _) = state.map_of(GROUP).ok_or("there is no map")?;
    Ok(state.held_by(map, MemberNo(member)).len())
}

fn owned(leader: &Leader) -> Result<usize, String> {
    let state = leader.execution.state();
    let (map, record) = state.map_of(GROUP).ok_or("there is no map")?;
    let map: MapId = map;
    let lives = (0_u32..).zip(&record.members);
    let lives = lives.filter(|(_, name)| state.incarnation(GROUP, name).is_some());
    Ok(lives
        .map(|(number, _)| state.held_by(map, MemberNo(number)).len())
        .sum())
}

fn phase<T>(
    said: &mut String,
    name: &str,
    leader: &mut Leader,
    body: impl FnOnce(&mut Leader) -> Result<T, String>,
) -> Result<T, String> {
    leader.steps = (Duration::ZERO, Duration::ZERO);
    leader.proposed_bytes = 0;
    let answer = body(leader)?;
    let (longest, all) = leader.steps;
    let _ = writeln!(
        said,
        "{name}: longest step {:.1} ms, all {:.1} ms, {} bytes of log",
        longest.as_secs_f64() * 1e3,
        all.as_secs_f64() * 1e3,
        leader.proposed_bytes,
    );
    Ok(answer)
}

fn subscribe(leader: &mut Leader, router: &Client, since: Option<Zxid>) -> Result<(), String> {
    let watch = ClientFrame::WatchMap {
        group: GROUP.to_owned(),
        detail: MapDetail::Routing,
        since,
    };
    leader.frame(router.stream, watch);
    leader.run()
}

/// What routers were told.
struct Told {
    /// Up to when the first one was told.
    through: Option<Zxid>,
    /// Bytes that one was told, at most, without the frames about them.
    most: usize,
}

/// Says what routers were told.
fn told(said: &mut String, leader: &mut Leader, routers: &[Client]) -> Option<Told> {
    let mut through = None;
    let mut bytes = Vec::new();
    for router in routers.iter().rev() {
        let mut of_this = (0, 0);
        for frame in leader.frames(router.stream) {
            leader.drained(router, &frame);
            if let ServerFrame::Map(update) = &frame {
                of_this.0 += update.body.len();
                of_this.1 += to_bytes(&frame).map_or(0, |bytes| bytes.len());
                through = Some(update.through);
            }
        }
        bytes.push(of_this);
    }
    let (least, (most, framed)) = (bytes.iter().min()?.0, *bytes.iter().max()?);
    let _ = writeln!(
        said,
        "  each of {} routers is told {least} to {most} bytes, {framed} with their frames",
        routers.len(),
    );
    Some(Told { through, most })
}

/// What of this process is in memory.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096 / (1 << 20)
}
