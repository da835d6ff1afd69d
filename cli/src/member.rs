//! `member`: groups and who is in them.

use std::collections::BTreeMap;
use std::time::Duration;

use folkmoot_client::{
    Group, GroupView, Member, MemberInfo, MemberSpec, MemberState, PartitionMap, Refusal, Session,
    Standing, WriteError,
};
use serde_json::{Value, json};

use crate::args;
use crate::connect::interrupt;
use crate::failure::{Failure, NO_LOCK, REFUSED};
use crate::output::{Output, note};
use crate::supervise::{Command, Signals, exit_code};

/// Joins, runs the command, and gives its exit code.
pub(crate) async fn join(session: &Session, arguments: args::Join) -> Result<u8, Failure> {
    let spec = MemberSpec {
        address: arguments.address,
        zone: arguments.zone,
        capacity: arguments.capacity,
        meta: meta(arguments.meta)?,
    };
    let group = Group::new(session, &arguments.group);
    let member = tokio::select! {
        member = group.join(&arguments.id, spec) => member?,
        () = interrupt() => return Err(Failure::interrupted()),
    };
    let mut signals = Signals::listen()?;
    let of = member.guard();
    let variables = [
        ("FOLKMOOT_GROUP", arguments.group),
        ("FOLKMOOT_MEMBER", arguments.id),
        ("FOLKMOOT_INCARNATION", of.token.to_string()),
        ("FOLKMOOT_GUARD", format!("{}={}", of.path, of.token)),
    ];
    let mut command = Command::spawn(&arguments.command, &variables)?;
    let is_held = || session.standing() < Standing::LeaseOver;
    if let Some(status) = command
        .attend(&mut signals, lease_over(session), is_held)
        .await?
    {
        command.reap_group();
        if let Some(delay) = arguments.restart_delay {
            announce(&member, Duration::from_secs_f64(delay)).await;
        }
        return Ok(exit_code(status));
    }
    note("the lease of the session is over: the command is being stopped");
    let grace = Duration::from_secs_f64(arguments.grace);
    command.stop(std::future::pending(), grace).await;
    let text = "the session was lost, and the command was stopped";
    Err(Failure::new(NO_LOCK, "session-lost", text))
}

/// The command has ended whatever comes of it, so that its exit code is told.
async fn announce(member: &Member, delay: Duration) {
    if let Err(error) = member.announce_restart(delay).await {
        note(format!("the restart is not announced: {error}"));
    }
}

async fn lease_over(session: &Session) {
    let mut changes = session.standing_changes();
    changes.wait_for(Standing::LeaseOver).await;
}

/// Facts by key, each of which is given once.
fn meta(facts: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut meta = BTreeMap::new();
    for (key, value) in facts {
        if meta.insert(key.clone(), value).is_some() {
            return Err(Failure::configuration(format!(
                "--meta {key} is given twice"
            )));
        }
    }
    Ok(meta)
}

/// The commands that ask one thing.
pub(crate) async fn operate(
    session: &Session,
    command: args::Member,
    out: Output,
) -> Result<(), Failure> {
    match command {
        args::Member::List { group, live } => {
            let mut members = Group::new(session, &group).members().await?;
            members.retain(|member| !live || member.record.state != MemberState::Gone);
            list(&members, out)
        }
        args::Member::Watch { group, count } => watch(session, &group, count, out).await,
        args::Member::Drain(of) => {
            let zxid = Group::new(session, &of.group).drain(&of.id).await?;
            told(&of, "is draining", zxid, out)
        }
        args::Member::Undrain(of) => {
            let zxid = Group::new(session, &of.group).undrain(&of.id).await?;
            told(&of, "is not draining", zxid, out)
        }
        args::Member::Forget(of) => {
            let zxid = Group::new(session, &of.group).forget(&of.id).await?;
            told(&of, "is forgotten", zxid, out)
        }
        args::Member::SafeToStop { group, ids, ttl } => {
            safe_to_stop(session, &group, ids, Duration::from_secs_f64(ttl), out).await
        }
        // It is run with signals of its own.
        args::Member::Join(_) => Ok(()),
    }
}

fn told(
    of: &args::OneMember,
    what: &str,
    zxid: folkmoot_client::Zxid,
    out: Output,
) -> Result<(), Failure> {
    let text = format!("{} of {} {what}", of.id, of.group);
    out.print(
        &text,
        &json!({ "group": of.group, "member": of.id, "zxid": zxid }),
    )
}

async fn safe_to_stop(
    session: &Session,
    group: &str,
    ids: Vec<String>,
    ttl: Duration,
    out: Output,
) -> Result<(), Failure> {
    let all = ids.join(", ");
    let map = PartitionMap::new(session, group);
    match map.permit(ids.clone(), ttl).await {
        Ok(permit) => {
            let text = format!(
                "{all} may stop within {} s, by permit {}",
                ttl.as_secs_f64(),
                permit.permit
            );
            let document = json!({
                "group": group,
                "members": ids,
                "permit": permit.permit,
                "until": permit.until,
            });
            out.print(&text, &document)
        }
        Err(WriteError::Refused(Refusal::NotSafe { reasons })) => {
            let reasons = reasons.join("\n  ");
            let text = format!("it is not safe to stop {all}:\n  {reasons}");
            Err(Failure::new(REFUSED, "not-safe", text))
        }
        Err(error) => Err(error.into()),
    }
}

fn list(members: &[MemberInfo], out: Output) -> Result<(), Failure> {
    let rows: Vec<_> = members.iter().map(row).collect();
    let documents: Vec<Value> = members.iter().map(|member| json!(member)).collect();
    let headings = [
        "ID",
        "STATE",
        "WHY",
        "ZONE",
        "CAPACITY",
        "ADDRESS",
        "INCARNATION",
        "META",
    ];
    out.table(&headings, &rows, &documents)
}

fn row(member: &MemberInfo) -> Vec<String> {
    let spec = member.spec.as_ref();
    let capacity: Vec<_> = member.record.capacity.iter().map(u64::to_string).collect();
    let meta = spec.map_or_else(Vec::new, |spec| {
        spec.meta
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    });
    let state = match member.record.healthy {
        true => member.record.state.name().to_owned(),
        false => format!("{}, unhealthy", member.record.state.name()),
    };
    vec![
        member.id.clone(),
        state,
        member.record.why.clone(),
        member.record.zone.clone(),
        capacity.join(","),
        spec.map_or_else(String::new, |spec| spec.address.clone()),
        member
            .record
            .incarnation
            .map_or_else(String::new, |zxid| zxid.to_string()),
        meta.join(" "),
    ]
}

/// Prints the members, and then each one that changes.
async fn watch(
    session: &Session,
    group: &str,
    count: Option<u64>,
    out: Output,
) -> Result<(), Failure> {
    let mut discovery = Group::new(session, group).discover().await?;
    let mut before = discovery.view();
    for member in before.members.iter() {
        print_member(before.zxid, member, out)?;
    }
    let mut told = 0;
    while count.is_none_or(|count| told < count) {
        let after = discovery.changed().await?;
        for member in changed(&before, &after) {
            print_member(after.zxid, member, out)?;
            told += 1;
        }
        before = after;
    }
    Ok(())
}

fn changed<'a>(before: &GroupView, after: &'a GroupView) -> Vec<&'a MemberInfo> {
    let is_new = |member: &&MemberInfo| !before.members.contains(member);
    after.members.iter().filter(is_new).collect()
}

fn print_member(
    zxid: folkmoot_client::Zxid,
    member: &MemberInfo,
    out: Output,
) -> Result<(), Failure> {
    let text = format!(
        "{zxid} {} {} ({}) {}",
        member.id,
        member.record.state.name(),
        member.record.why,
        member.spec.as_ref().map_or("", |spec| &spec.address),
    );
    out.print(text.trim_end(), &json!({ "zxid": zxid, "member": member }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_given_once() {
        let fact = |key: &str| (key.to_owned(), "v".to_owned());
        assert_eq!(meta(vec![fact("a"), fact("b")]).unwrap().len(), 2);
        assert!(meta(vec![fact("a"), fact("a")]).is_err());
    }
}
