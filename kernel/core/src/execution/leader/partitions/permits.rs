//! Whether members may stop (rule R42).

use std::collections::BTreeSet;

use folkmoot_proto::MapId;
use folkmoot_proto::effect::Effect;
use folkmoot_proto::limits::{MAP_PERMITS_MAX, PERMIT_MEMBERS_MAX, PERMIT_MS_MAX};
use folkmoot_proto::partition::{MapRecord, MemberNo, Permit};
use folkmoot_proto::reply::{Outcome, Refusal};

use super::roster::Roster;
use crate::execution::leader::draft::Draft;
use crate::execution::leader::operations::{check_count, check_limit};
use crate::mutation::{self, Mutation};
use crate::state::View;

/// Reasons that a refusal gives.
const REASONS_MAX: usize = 16;

/// Permits these members to stop at once, if every partition that they have keeps a ready replica
/// elsewhere, permits that hold counted with it.
pub(super) fn permit(
    draft: &mut Draft,
    (map, record): (MapId, &MapRecord),
    members: &[String],
    ttl_ms: u64,
) -> Result<Outcome, Refusal> {
    check_count("members of a permit", members.len(), PERMIT_MEMBERS_MAX)?;
    check_limit("milliseconds that a permit holds", ttl_ms, PERMIT_MS_MAX)?;
    let mut stopping = BTreeSet::new();
    for name in members {
        stopping.insert(super::operations::number(record, name)?);
    }
    let now = draft.stamp().log_time;
    let mut ledger = draft.view().ledger(map);
    ledger.permits.retain(|permit| permit.until > now);
    check_count(
        "permits of a map",
        ledger.permits.len() + 1,
        MAP_PERMITS_MAX,
    )?;
    let asked: Vec<MemberNo> = stopping.iter().copied().collect();
    if !mutation::is_on(Mutation::PermitForgotten) {
        let granted = ledger.permits.iter().flat_map(|permit| &permit.members);
        stopping.extend(granted.copied());
    }
    let reasons = reasons(draft, (map, record), &asked, &stopping);
    if !reasons.is_empty() {
        return Err(Refusal::NotSafe { reasons });
    }
    let (permit, until) = (draft.stamp().zxid, now.plus_millis(ttl_ms));
    ledger.permits.push(Permit {
        id: permit,
        members: asked,
        until,
    });
    draft.effect(Effect::PutLedger {
        map,
        ledger: Box::new(ledger),
    })?;
    Ok(Outcome::Permitted { permit, until })
}

/// Why these can not stop while all those do; the first reasons where there are many.
fn reasons(
    draft: &Draft,
    (map, record): (MapId, &MapRecord),
    asked: &[MemberNo],
    stopping: &BTreeSet<MemberNo>,
) -> Vec<String> {
    let view = draft.view();
    let mut roster = Roster::new(record);
    let mut reasons = Vec::new();
    let mut more = 0;
    let mut seen = BTreeSet::new();
    for member in asked {
        let name = roster.of(view, record, *member).name.clone();
        for partition in view.held_by(map, *member) {
            let Some(of) = view.partition(map, partition) else {
                continue;
            };
            let mut stays = |member: MemberNo| {
                let replica = of.assignment.replicas.iter().find(|it| it.member == member);
                let incarnation = roster.of(view, record, member).incarnation;
                let ready =
                    replica.is_some_and(|it| it.ready && Some(it.incarnation) == incarnation);
                ready && !stopping.contains(&member)
            };
            let survives = of.assignment.replicas.iter().any(|it| stays(it.member));
            if survives || !seen.insert(partition) {
                continue;
            }
            if reasons.len() < REASONS_MAX {
                reasons.push(format!(
                    "partition {partition} has no ready replica beside {name} and others that may stop"
                ));
            } else {
                more += 1;
            }
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} partitions more"));
    }
    reasons
}
