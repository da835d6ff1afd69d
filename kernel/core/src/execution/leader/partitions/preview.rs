//! Previews: what a policy would plan, for an operator, without doing it.

use folkmoot_proto::codec::Compact;
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::Outcome;
use folkmoot_proto::{Digest, MapId, Now, Tick, Ticket};

use super::answer;
use super::plan::ANSWER_MS;
use super::question::{Question, Rows};
use super::roster::Roster;
use crate::execution::Execution;
use crate::execution::leader::draft::KERNEL_MOUNT;
use crate::policy::{PolicyAnswer, PolicyCallId, PolicyFailure};
use crate::state::View;

/// Bytes of a preview's answer.
const PREVIEW_BYTES_MAX: usize = 256 * 1024;

/// A preview that is being asked for.
#[derive(Debug)]
pub(super) struct Preview {
    pub(super) id: PolicyCallId,
    ticket: Ticket,
    map: MapId,
    at: Tick,
    rows: Rows,
    pub(super) answer: Option<PolicyAnswer>,
}

/// What a preview's wait keeps, so that a new leader asks again.
pub(super) struct PreviewMemo {
    pub(super) group: String,
    pub(super) digest: Digest,
    pub(super) configuration: String,
}

folkmoot_proto::compact_struct!(PreviewMemo {
    group,
    digest,
    configuration
});

impl Execution {
    /// Asks for the previews that wait, and answers those whose plans have come.
    pub(super) fn answer_previews(&mut self, now: Now) {
        let Some(leader) = &mut self.leader else {
            return;
        };
        if core::mem::take(&mut leader.maps.previews_due) {
            for ticket in self.speculative().waits_of_mount(KERNEL_MOUNT) {
                self.ask_for_preview(now, ticket);
            }
        }
        let Some(leader) = &mut self.leader else {
            return;
        };
        let previews = core::mem::take(&mut leader.maps.previews);
        let (due, waiting): (Vec<_>, Vec<_>) = previews.into_iter().partition(|preview| {
            preview.answer.is_some() || now.tick >= preview.at.plus_millis(ANSWER_MS)
        });
        leader.maps.previews = waiting;
        for preview in due {
            self.answer_preview(now, preview);
        }
    }

    fn ask_for_preview(&mut self, now: Now, ticket: Ticket) {
        let known = |leader: &super::super::Leader| {
            let mut previews = leader.maps.previews.iter();
            previews.any(|preview| preview.ticket == ticket)
        };
        if self.leader.as_ref().is_none_or(known) {
            return;
        }
        let wait = self.speculative().wait(ticket);
        let memo = wait.map(|wait| PreviewMemo::from_compact(&wait.memo));
        let Some(Ok(memo)) = memo else {
            return;
        };
        let map = self.speculative().map_of(&memo.group);
        let Some((map, record)) = map.map(|(map, record)| (map, record.clone())) else {
            return;
        };
        let choice = PolicyChoice {
            digest: memo.digest,
            configuration: memo.configuration,
        };
        let mut question = Question::new(self.speculative(), (map, &record));
        question.gather(self.speculative(), usize::MAX);
        let log_time = self.txn_log_time(now);
        let (mut tables, rows) = question.finish(record.config.replicas, "request", log_time);
        let active = self.active(now.tick);
        let controllers = self.leader.as_ref().map(|leader| &leader.maps.controllers);
        if let Some(controller) = controllers.and_then(|all| all.get(&map)) {
            controller.loads.add_to(&mut tables, &rows, active);
        }
        let id = self.ask_rebalancer(&choice, tables);
        if let Some(leader) = &mut self.leader {
            leader.maps.previews.push(Preview {
                id,
                ticket,
                map,
                at: now.tick,
                rows,
                answer: None,
            });
        }
    }

    fn answer_preview(&mut self, now: Now, preview: Preview) {
        let view = self.speculative();
        let no_answer = || {
            Err(PolicyFailure::Fault {
                kind: "timeout".to_owned(),
                message: "there was no answer".to_owned(),
            })
        };
        let answer = preview.answer.unwrap_or_else(no_answer);
        let text = match (view.map(preview.map), answer) {
            (None, _) => serde_json::json!({ "problem": "there is no map any more" }),
            (_, Err(failure)) => serde_json::json!({ "problem": failure.to_string() }),
            (Some(record), Ok(answer)) => {
                let mut roster = Roster::new(record);
                let map = (preview.map, record);
                let log_time = self.txn_log_time(now);
                match answer::read(&answer, &preview.rows, view, map, &mut roster, log_time) {
                    Ok(read) => answer::describe(&read.plan, &answer, view, map),
                    Err(problem) => serde_json::json!({ "problem": problem }),
                }
            }
        };
        let mut text = text.to_string();
        if text.len() > PREVIEW_BYTES_MAX {
            text = serde_json::json!({ "problem": "the plan is too long to be shown" }).to_string();
        }
        self.kernel_txn(now, |draft| {
            let Some(wait) = draft.view().wait(preview.ticket).cloned() else {
                return Ok(());
            };
            draft.complete(&wait, Ok(Outcome::Planned(text)))
        });
    }
}
